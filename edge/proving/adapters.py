"""The proof of a subject's adapters: each is stored as it was trained, and does what the reference does with it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.checkpoint import Checkpoint
from converters.decoder import Decoder, Lora
from converters.errors import EdgeError, MachineError
from converters.reference import logits
from converters.rooms import ADAPTER_ROOMS
from converters.verify import divergence
from edge.progress import Progress
from edge.proving.judgement import over
from edge.proving.references import through
from edge.proving.subject import Subject
from edge.runtimes.isolated import teacher_forced


def prove_adapters(
    checkpoint: Checkpoint,
    decoder: Decoder,
    subject: Subject,
    ids: list[int],
    without: NDArray[np.float32],
    progress: Progress,
) -> tuple[dict[str, Any], list[str]]:
    """For each adapter {fidelity, quality, effect}, and what failed.

    `without`: the subject's logits [len(ids), vocab] with no adapter. effect: how far the adapter takes them; one that
    does nothing, though it should, fails.
    """
    failures = ADAPTER_ROOMS[subject.format].adapter_faults(checkpoint, decoder, subject.recipe, subject.path)
    proven = {}
    for lora in decoder.adapters:
        progress.stage(f"prove {subject.name}: adapter {lora.name}", len(ids), "tokens")
        try:
            proven[lora.name], found = _prove_one(checkpoint, decoder, subject, ids, lora, without)
        except MachineError:
            raise
        except EdgeError as error:
            found = [error.cause]
        failures += [f"adapter {lora.name}: {failure}" for failure in found]
    return proven, failures


def _prove_one(
    checkpoint: Checkpoint,
    decoder: Decoder,
    subject: Subject,
    ids: list[int],
    lora: Lora,
    without: NDArray[np.float32],
) -> tuple[dict[str, Any], list[str]]:
    measured = teacher_forced(
        subject.path,
        ids,
        Path(tempfile.gettempdir()),
        context_length=subject.context_length,
        adapter=lora.name,
    ).logits
    result: dict[str, Any] = {"effect": divergence(without, measured).to_data()}
    failures: list[str] = []
    for question, transform in (("fidelity", through(subject, decoder)), ("quality", None)):
        reference = logits(checkpoint, decoder, ids, transform=transform, adapter=lora)
        found = divergence(reference, measured)
        result[question] = found.to_data()
        failures += over(question, found, subject.limits)
    if np.array_equal(without, measured):
        failures.append("it changes no logit")
    return result, failures

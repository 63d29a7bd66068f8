"""Run the proof of `converters.verify` on the variants of a bundle and judge it by the target's limits."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from converters.checkpoint import Checkpoint
from converters.decoder import Decoder, Weight
from converters.errors import EdgeError
from converters.reference import logits as reference_logits
from converters.stored import open_stored
from converters.verify import check_stored, divergence
from edge.progress import Progress
from edge.runtimes.isolated import teacher_forced
from edge.targets import Limits
from quant.recipe import Recipe

TEXT = Path(__file__).with_name("proof.txt")
TOKENS = 256
MAX_LOGIT_BYTES = 64 << 20


@dataclass(frozen=True)
class Subject:
    """What is proven: one artifact, how its weights were encoded, and what it must reach."""

    name: str
    format: str
    path: Path
    recipe: Recipe
    context_length: int
    limits: Limits


def proof_tokens(directory: Path, decoder: Decoder, context_length: int) -> list[int]:
    """Token ids of the shipped text under the checkpoint's own tokenizer: at most TOKENS, fewer for a huge
    vocabulary (MAX_LOGIT_BYTES of float32 logits) or a short context."""
    text = TEXT.read_text(encoding="utf-8")
    ids: list[int] = Tokenizer.from_file(str(directory / "tokenizer.json")).encode(text).ids
    most = min(TOKENS, MAX_LOGIT_BYTES // (4 * decoder.vocab_size), context_length)
    return [i for i in ids if i < decoder.vocab_size][: max(most, 1)]


def prove(
    checkpoint: Checkpoint, decoder: Decoder, subjects: Sequence[Subject], progress: Progress
) -> dict[str, Any]:
    """The content of proof.json: {format, passed, tokens, variants: {name: {...}}}."""
    ids = proof_tokens(checkpoint.directory, decoder, min(s.context_length for s in subjects))
    runs = 1 + len({s.recipe for s in subjects})
    progress.stage("reference", runs, "runs")
    plain = reference_logits(checkpoint, decoder, ids)
    progress.advance(1)
    through: dict[Recipe, NDArray[np.float32]] = {}
    for recipe in dict.fromkeys(s.recipe for s in subjects):
        through[recipe] = reference_logits(checkpoint, decoder, ids, transform=_codec(recipe))
        progress.advance(1)
    variants = {}
    for subject in subjects:
        logits = through[subject.recipe]
        variants[subject.name] = _prove_one(checkpoint, decoder, subject, ids, plain, logits, progress)
    return {
        "format": 1,
        "passed": all(v["passed"] for v in variants.values()),
        "tokens": len(ids),
        "text": TEXT.name,
        "variants": variants,
    }


def _codec(recipe: Recipe) -> Any:
    def transform(weight: Weight, raw: NDArray[np.generic]) -> NDArray[np.float32]:
        return recipe.decode(recipe.encode(weight, raw))

    return transform


def _prove_one(
    checkpoint: Checkpoint,
    decoder: Decoder,
    subject: Subject,
    ids: list[int],
    plain: NDArray[np.float32],
    through: NDArray[np.float32],
    progress: Progress,
) -> dict[str, Any]:
    failures: list[str] = []
    result: dict[str, Any] = {"limits": dict(vars(subject.limits))}
    progress.stage(f"prove {subject.name}: stored weights", decoder.parameters * 2)
    try:
        stored = open_stored(subject.format, subject.path, decoder, subject.recipe)
        try:
            report = check_stored(
                checkpoint,
                decoder,
                stored,
                context_length=subject.context_length,
                codec=_codec(subject.recipe),
                advance=progress.advance,
            )
        finally:
            stored.close()
        result["stored"] = report.to_data()
        failures += report.faults
    except EdgeError as error:
        failures.append(error.cause)
    progress.stage(f"prove {subject.name}: run it", len(ids), "tokens")
    with tempfile.TemporaryDirectory(prefix="edge-proof-") as work:
        try:
            measured = teacher_forced(subject.path, ids, Path(work), context_length=subject.context_length)
        except EdgeError as error:
            failures.append(error.cause)
        else:
            result["runtime"] = measured.runtime
            for question, reference in (("fidelity", through), ("quality", plain)):
                found = divergence(reference, np.asarray(measured.logits))
                result[question] = found.to_data()
                failures += _over(question, found.kl_mean, found.top1, vars(subject.limits))
    return {**result, "failures": failures, "passed": not failures}


def _over(question: str, kl: float, top1: float, limits: Mapping[str, float]) -> list[str]:
    failures = []
    if not kl <= limits[f"{question}_kl_mean"]:
        failures.append(f"{question}: mean KL {kl:.4g} is above {limits[f'{question}_kl_mean']:g}")
    if not top1 >= limits[f"{question}_top1"]:
        failures.append(f"{question}: top-1 agreement {top1:.3f} is below {limits[f'{question}_top1']:g}")
    return failures

"""Run the proof of `converters.verify` on the variants of a bundle and judge it by the target's limits."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from converters.checkpoint import Checkpoint
from converters.decoder import Decoder
from converters.errors import EdgeError, MachineError
from converters.multimodal import Multimodal, text_of
from converters.rooms import MULTIMODAL, ROOMS, described, rewriting
from converters.verify import StoredReport, check_stored, divergence
from edge.progress import Progress
from edge.proving.adapters import prove_adapters
from edge.proving.judgement import limits_of, over
from edge.proving.media import prove_media
from edge.proving.references import References, codec_of, source_of
from edge.proving.subject import MAX_LOGIT_BYTES, TEXT, TOKENS, Subject, proof_tokens, text
from edge.proving.subject import tokenizer as tokenizer_of
from edge.runtimes.isolated import Measured, teacher_forced

__all__ = ["MAX_LOGIT_BYTES", "TEXT", "TOKENS", "Subject", "proof_tokens", "prove"]

Model = Decoder | Multimodal


def prove(
    checkpoint: Checkpoint, model: Model, subjects: Sequence[Subject], progress: Progress
) -> dict[str, Any]:
    """The content of proof.json: {format, passed, tokens, variants: {name: {...}}}.

    What is wrong with a subject is a failure in there. Raises MachineError when disk or memory run out, or the
    engine is killed: that says nothing about the subject.
    """
    try:
        return _prove(checkpoint, model, subjects, progress)
    except (OSError, MemoryError) as error:
        raise MachineError(
            f"the proof could not be finished: {str(error) or type(error).__name__}",
            hint="free memory, and space in the directory for temporary files (TMPDIR), and run it again",
        ) from None


def _prove(
    checkpoint: Checkpoint, model: Model, subjects: Sequence[Subject], progress: Progress
) -> dict[str, Any]:
    decoder = text_of(model)
    ids = proof_tokens(checkpoint.directory, decoder, max(s.context_length for s in subjects))
    references = References(checkpoint, decoder, ids, subjects, progress)
    variants = {
        subject.name: _prove_one(checkpoint, model, subject, references, progress) for subject in subjects
    }
    return {
        "format": 1,
        "passed": all(v["passed"] for v in variants.values()),
        "tokens": len(ids),
        "text": TEXT.name,
        "variants": variants,
    }


def _prove_one(
    checkpoint: Checkpoint,
    model: Model,
    subject: Subject,
    references: References,
    progress: Progress,
) -> dict[str, Any]:
    failures: list[str] = []
    decoder = text_of(model)
    ids = references.ids(subject)
    limits = limits_of(subject, decoder)
    result: dict[str, Any] = {"limits": dict(vars(limits)), "tokens": len(ids)}
    if rewritten := rewriting(subject.format, decoder):
        lost = divergence(references.plain(subject), references.rewritten(subject))
        result |= {"approximate": rewritten.why, "approximation": lost.to_data()}
    if subject.source:
        result["stored"] = {"compiled_from": subject.source}
    else:
        stored, faults = _stored(checkpoint, model, subject, progress)
        result |= stored
        failures += faults
    progress.stage(f"prove {subject.name}: run it", len(ids), "tokens")
    try:
        measured = teacher_forced(
            subject.path,
            ids,
            Path(tempfile.gettempdir()),
            context_length=subject.context_length,
            text=text(),
        )
    except MachineError:
        raise
    except EdgeError as error:
        failures.append(error.cause)
    else:
        result["runtime"] = measured.runtime
        failures += _token_failures(checkpoint.directory, decoder, measured)
        for question, reference in (
            ("fidelity", references.through(subject)),
            ("quality", references.plain(subject)),
        ):
            if measured.logits.shape != reference.shape:
                failures.append(
                    f"{question}: logits have the shape {measured.logits.shape}, the checkpoint's {reference.shape}"
                )
                continue
            found = divergence(reference, np.asarray(measured.logits))
            result[question] = found.to_data()
            failures += over(question, found, limits)
        if isinstance(model, Multimodal) and subject.format == MULTIMODAL:
            seen, faults = prove_media(checkpoint, model, subject, ids, progress)
            result |= seen
            failures += faults
        elif decoder.adapters:
            proven, faults = prove_adapters(checkpoint, decoder, subject, ids, measured.logits, progress)
            result["adapters"] = proven
            failures += faults
    return {**result, "failures": failures, "passed": not failures}


def _stored(
    checkpoint: Checkpoint, model: Model, subject: Subject, progress: Progress
) -> tuple[dict[str, Any], list[str]]:
    progress.stage(f"prove {subject.name}: stored weights", model.parameters * 2)
    try:
        report = _stored_report(checkpoint, model, subject, progress)
    except MachineError:
        raise
    except EdgeError as error:
        return {}, [error.cause]
    return {"stored": report.to_data()}, list(report.faults)


def _stored_report(
    checkpoint: Checkpoint, model: Model, subject: Subject, progress: Progress
) -> StoredReport:
    decoder, content = text_of(model), described(subject.format, model)
    calibrated = {weight.name for weight in subject.recipe.to_calibrate(decoder)}
    stored = ROOMS[subject.format].open_stored(subject.path, content, subject.recipe)
    source, _ = source_of(subject.format, checkpoint, decoder)
    try:
        return check_stored(
            source,
            content,
            stored,
            context_length=subject.context_length,
            codec=codec_of(subject.recipe, decoder),
            calibrated=lambda weight: weight.name in calibrated,
            advance=progress.advance,
        )
    finally:
        stored.close()


def _token_failures(directory: Path, decoder: Decoder, measured: Measured) -> list[str]:
    """The artifact must cut text as the checkpoint does, and stop wherever the checkpoint stops."""
    failures = []
    tokenizer = tokenizer_of(directory)
    tokenizer.encode_special_tokens = True
    expected = tokenizer.encode(text(), add_special_tokens=False).ids
    if measured.text_ids != expected:
        pairs = zip(measured.text_ids, expected, strict=False)
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        failures.append(
            f"tokenizer: the ids of {TEXT.name} differ from the checkpoint's from token {same} on"
        )
    ends = {i for i in decoder.eos_token_ids if i < decoder.vocab_size}
    if missing := sorted(ends - measured.stop_ids):
        failures.append(f"stop tokens: it does not stop at {missing}, the checkpoint does")
    return failures

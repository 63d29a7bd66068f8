"""Run the proof of `converters.verify` on the variants of a bundle and judge it by the target's limits."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from converters.checkpoint import Checkpoint
from converters.decoder import Decoder, Weight
from converters.errors import CheckpointError, EdgeError, MachineError
from converters.reference import Transform
from converters.reference import logits as reference_logits
from converters.rooms import ROOMS
from converters.verify import Codec, StoredReport, check_stored, divergence
from edge.progress import Progress
from edge.runtimes.isolated import Measured, teacher_forced
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
    source: str | None = None
    """The variant that this one was compiled from: its weights can be read, those of a compiled one cannot."""
    tokens: int = TOKENS
    """At most so many are run: an emulated NPU takes seconds for one."""


def proof_tokens(directory: Path, decoder: Decoder, context_length: int) -> list[int]:
    """Token ids of the shipped text under the checkpoint's own tokenizer, with the special tokens (BOS) that it
    adds: at most TOKENS, fewer for a huge vocabulary (MAX_LOGIT_BYTES of float32 logits) or a short context."""
    ids: list[int] = _tokenizer(directory).encode(_text()).ids
    if max(ids, default=0) >= decoder.vocab_size:
        raise CheckpointError(
            f"{directory / 'tokenizer.json'} gives the id {max(ids)}, the embedding has {decoder.vocab_size} rows",
            hint="fetch the checkpoint again: the tokenizer belongs to another model",
        )
    most = min(TOKENS, MAX_LOGIT_BYTES // (4 * decoder.vocab_size), context_length)
    return ids[: max(most, 1)]


def _tokenizer(directory: Path) -> Tokenizer:
    path = directory / "tokenizer.json"
    if not path.is_file():
        raise CheckpointError(f"{path} is missing: the proof needs it", hint="fetch the checkpoint again")
    return Tokenizer.from_file(str(path))


def _text() -> str:
    return TEXT.read_text(encoding="utf-8")


def prove(
    checkpoint: Checkpoint, decoder: Decoder, subjects: Sequence[Subject], progress: Progress
) -> dict[str, Any]:
    """The content of proof.json: {format, passed, tokens, variants: {name: {...}}}.

    What is wrong with a subject is a failure in there. Raises MachineError when disk or memory run out, or the
    engine is killed: that says nothing about the subject.
    """
    try:
        return _prove(checkpoint, decoder, subjects, progress)
    except (OSError, MemoryError) as error:
        raise MachineError(
            f"the proof could not be finished: {str(error) or type(error).__name__}",
            hint="free memory, and space in the directory for temporary files (TMPDIR), and run it again",
        ) from None


def _prove(
    checkpoint: Checkpoint, decoder: Decoder, subjects: Sequence[Subject], progress: Progress
) -> dict[str, Any]:
    ids = proof_tokens(checkpoint.directory, decoder, max(s.context_length for s in subjects))
    references = _References(checkpoint, decoder, ids, subjects, progress)
    variants = {
        subject.name: _prove_one(checkpoint, decoder, subject, references, progress) for subject in subjects
    }
    return {
        "format": 1,
        "passed": all(v["passed"] for v in variants.values()),
        "tokens": len(ids),
        "text": TEXT.name,
        "variants": variants,
    }


class _References:
    """Reference logits for every subject, each as long as its context allows.

    The model is causal: a shorter subject takes the first rows of a longer one's, unless LongRoPE's factors,
    which follow the total length, switch in between.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        decoder: Decoder,
        ids: list[int],
        subjects: Sequence[Subject],
        progress: Progress,
    ) -> None:
        self._ids, self._rope = ids, decoder.rope
        longest: dict[tuple[Recipe | None, bool], int] = {}
        for subject in subjects:
            count = len(self.ids(subject))
            for recipe in (None, subject.recipe):
                key = (recipe, self._long(count))
                longest[key] = max(longest.get(key, 0), count)
        progress.stage("reference", len(longest), "runs")
        self._logits: dict[tuple[Recipe | None, bool], NDArray[np.float32]] = {}
        for (recipe, long), count in longest.items():
            transform = None if recipe is None else self._through(recipe, decoder, subjects)
            self._logits[recipe, long] = reference_logits(
                checkpoint, decoder, ids[:count], transform=transform
            )
            progress.advance(1)

    @staticmethod
    def _through(recipe: Recipe, decoder: Decoder, subjects: Sequence[Subject]) -> Transform:
        """The recipe's round trip, or what an artifact of that recipe holds where its codes are kept no more."""
        codec = _codec(recipe, decoder)
        subject = next(s for s in subjects if s.recipe == recipe)

        def transform(weight: Weight, start: int, raw: NDArray[np.generic]) -> NDArray[np.float32]:
            made = codec(weight, start, raw)
            if made is None:
                stored = ROOMS[subject.format].open_stored(subject.path, decoder, recipe)
                made = stored.rows(weight, start, start + len(raw))
                stored.close()
            return made

        return transform

    def ids(self, subject: Subject) -> list[int]:
        return self._ids[: min(subject.context_length, subject.tokens)]

    def plain(self, subject: Subject) -> NDArray[np.float32]:
        """From the checkpoint's weights, float32 [len(ids), vocab]."""
        return self._rows(None, len(self.ids(subject)))

    def through(self, subject: Subject) -> NDArray[np.float32]:
        """From the weights after the recipe's round trip."""
        return self._rows(subject.recipe, len(self.ids(subject)))

    def _rows(self, recipe: Recipe | None, count: int) -> NDArray[np.float32]:
        return self._logits[recipe, self._long(count)][:count]

    def _long(self, count: int) -> bool:
        return self._rope.is_longrope and count > self._rope.original_context


def _codec(recipe: Recipe, decoder: Decoder) -> Codec:
    unknown = set() if recipe.codes else {weight.name for weight in recipe.to_calibrate(decoder)}

    def codec(weight: Weight, start: int, raw: NDArray[np.generic]) -> NDArray[np.float32] | None:
        return None if weight.name in unknown else recipe.decode(recipe.encode(weight, raw, start=start))

    return codec


def _prove_one(
    checkpoint: Checkpoint,
    decoder: Decoder,
    subject: Subject,
    references: _References,
    progress: Progress,
) -> dict[str, Any]:
    failures: list[str] = []
    ids = references.ids(subject)
    result: dict[str, Any] = {"limits": dict(vars(subject.limits)), "tokens": len(ids)}
    if subject.source:
        result["stored"] = {"compiled_from": subject.source}
    else:
        stored, faults = _stored(checkpoint, decoder, subject, progress)
        result |= stored
        failures += faults
    progress.stage(f"prove {subject.name}: run it", len(ids), "tokens")
    try:
        measured = teacher_forced(
            subject.path,
            ids,
            Path(tempfile.gettempdir()),
            context_length=subject.context_length,
            text=_text(),
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
            failures += _over(question, found.kl_mean, found.top1, vars(subject.limits))
    return {**result, "failures": failures, "passed": not failures}


def _stored(
    checkpoint: Checkpoint, decoder: Decoder, subject: Subject, progress: Progress
) -> tuple[dict[str, Any], list[str]]:
    progress.stage(f"prove {subject.name}: stored weights", decoder.parameters * 2)
    try:
        report = _stored_report(checkpoint, decoder, subject, progress)
    except MachineError:
        raise
    except EdgeError as error:
        return {}, [error.cause]
    return {"stored": report.to_data()}, list(report.faults)


def _stored_report(
    checkpoint: Checkpoint, decoder: Decoder, subject: Subject, progress: Progress
) -> StoredReport:
    calibrated = {weight.name for weight in subject.recipe.to_calibrate(decoder)}
    stored = ROOMS[subject.format].open_stored(subject.path, decoder, subject.recipe)
    try:
        return check_stored(
            checkpoint,
            decoder,
            stored,
            context_length=subject.context_length,
            codec=_codec(subject.recipe, decoder),
            calibrated=lambda weight: weight.name in calibrated,
            advance=progress.advance,
        )
    finally:
        stored.close()


def _token_failures(directory: Path, decoder: Decoder, measured: Measured) -> list[str]:
    """The artifact must cut text as the checkpoint does, and stop wherever the checkpoint stops."""
    failures = []
    tokenizer = _tokenizer(directory)
    tokenizer.encode_special_tokens = True
    expected = tokenizer.encode(_text(), add_special_tokens=False).ids
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


def _over(question: str, kl: float, top1: float, limits: Mapping[str, float]) -> list[str]:
    failures = []
    if not kl <= limits[f"{question}_kl_mean"]:
        failures.append(f"{question}: mean KL {kl:.4g} is above {limits[f'{question}_kl_mean']:g}")
    if not top1 >= limits[f"{question}_top1"]:
        failures.append(f"{question}: top-1 agreement {top1:.3f} is below {limits[f'{question}_top1']:g}")
    return failures

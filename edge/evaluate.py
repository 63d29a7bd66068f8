"""How far an artifact is from what it was made of: perplexity, KL divergence, the same favourite, answers.

The method is that of llama.cpp's llama-perplexity --kl-divergence (tools/perplexity/perplexity.cpp): see
`edge.evaluation.windows` for the windows and `edge.evaluation.statistics` for the errors. It differs in one thing:
llama-perplexity stores the reference's log-probabilities in 16 bits and leaves out those below e**-16, here they
are float32. `benchmarks/eval_parity.py` runs both.
"""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path

from converters.checkpoint import Checkpoint
from converters.errors import UnsupportedError
from edge.evaluation.comparison import compare
from edge.evaluation.engine import Engine
from edge.evaluation.reference import CheckpointReference, Reference
from edge.evaluation.result import Evaluation
from edge.evaluation.windows import LENGTH, Windows, cut
from edge.progress import Progress, Silent

__all__ = ["CheckpointReference", "Evaluation", "evaluate", "shared_windows"]


def evaluate(
    artifact: Path,
    reference: Reference | Checkpoint | None,
    text: str,
    *,
    length: int = LENGTH,
    windows: int | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    name: str | None = None,
    text_name: str = "text",
) -> Evaluation:
    """One artifact (a .gguf file or genai folder) on one text, the engine in a process of its own.

    Give several artifacts the same `CheckpointReference`, and the checkpoint is computed once. windows: at most so
    many. Raises UnsupportedError for a text too short for one window, another tokenizer or vocabulary than the
    reference's, and logits that are no numbers; what the engine raises; MachineError when it was killed.
    """
    progress = progress or Silent()
    if isinstance(reference, Checkpoint):
        reference = CheckpointReference(reference)
    with Engine(artifact, name=name or artifact.name, length=length, threads=threads) as engine:
        chosen = shared_windows(engine, reference, text, text_name, length, windows, progress)
        if reference is not None:
            reference.prepare([chosen], progress)
        return compare(engine, reference, chosen, text=text_name, progress=progress)


def shared_windows(
    engine: Engine,
    reference: Reference | None,
    text: str,
    name: str,
    length: int,
    most: int | None,
    progress: Progress,
) -> Windows:
    """The reference's windows of the text, which must be the engine's too; without a reference the engine's."""
    ids = engine.encode(text)
    if reference is None:
        return cut(ids, length=length, bos=engine.bos, most=most, name=name)
    if engine.vocab_size != reference.vocab_size:
        raise UnsupportedError(
            f"{engine.name} has a vocabulary of {engine.vocab_size} tokens, {reference.name} of {reference.vocab_size}",
            hint="compare artifacts of one model",
        )
    expected = reference.encode(text)
    if ids != expected:
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(ids, expected, strict=False)))
        raise UnsupportedError(
            f"{engine.name} cuts {name} into other tokens than {reference.name}, from token {same} on",
            hint="compare artifacts of one model",
        )
    if engine.bos != reference.bos:
        progress.note(
            f"{engine.name} begins a text with token {engine.bos}, {reference.name} with {reference.bos}: "
            f"both are given {reference.name}'s"
        )
    return cut(expected, length=length, bos=reference.bos, most=most, name=name)

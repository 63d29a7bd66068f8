"""The predictions in which an artifact differs from the original, with the text around them."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edge.evaluation.result import Evaluation, Positions, Worst
from edge.reporting.foreign import visible

SHOWN = 8
KL_STEPS = (0.1, 0.25, 0.5, 1.0, 2.0)
"""Nats from which a token's shade deepens. Fixed, so that two reports can be compared."""
CONTEXT = 120
"""Characters of text before a case, at most."""
MOST_BYTES = 16  # of tokens that together make a character


@dataclass(frozen=True)
class Span:
    """Consecutive tokens of the text that end on a character's end. `step`: 0 for no shade, to len(KL_STEPS)."""

    text: str
    kl: float
    step: int


@dataclass(frozen=True)
class Rival:
    """A candidate as both saw it."""

    text: str
    original: float
    artifact: float
    came: bool


@dataclass(frozen=True)
class Case:
    """One of the worst predictions; `before` leads to it, `target` is what came in the text."""

    kl: float
    before: str
    target: str
    rivals: tuple[Rival, ...]


def spans(evaluation: Evaluation) -> list[Span]:
    """The predicted half of the window in which the mean KL is largest; empty without a reference."""
    positions = evaluation.positions
    if positions.kl is None:
        return []
    window = int(positions.kl.mean(-1).argmax())
    targets = positions.windows.targets[window].tolist()
    return list(_spans(positions, targets, positions.kl[window].astype(np.float64).tolist()))


def _spans(positions: Positions, targets: list[int], kls: list[float]) -> Iterator[Span]:
    held, worst = b"", 0.0
    for i, (token, kl) in enumerate(zip(targets, kls, strict=True)):
        held, worst = held + positions.pieces[token], max(worst, kl)
        if _whole(held) or len(held) >= MOST_BYTES or i + 1 == len(targets):
            yield Span(held.decode("utf-8", "replace"), worst, bisect_right(KL_STEPS, worst))
            held, worst = b"", 0.0


def _whole(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def cases(evaluation: Evaluation, most: int = SHOWN) -> list[Case]:
    """The worst predictions, largest KL first."""
    return [_case(evaluation.positions, worst) for worst in evaluation.positions.worst[:most]]


def _one_line(text: str) -> str:
    """The end of `text`, line ends as signs and long gaps short."""
    joined = re.sub(r"\s*\n\s*", " ↵ ", re.sub(r"[^\S\n]{2,}", " ", text))
    return f"… {joined[-CONTEXT:].lstrip()}"


def _label(positions: Positions, token: int) -> str:
    """A token alone: spaces seen, and one that has no text by its number."""
    return visible(positions.text([token])).replace(" ", "␣") or f"token {token}"


def _case(positions: Positions, worst: Worst) -> Case:
    rivals = sorted(worst.candidates, key=lambda c: -c.reference)
    return Case(
        worst.kl,
        _one_line(positions.before(worst)),
        _label(positions, worst.target),
        tuple(
            Rival(_label(positions, c.token), c.reference, c.artifact, c.token == worst.target)
            for c in rivals
        ),
    )

"""From logits to one token, in numpy, the same for every engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from converters.errors import UnsupportedError

_HEAD = 1024
"""A nucleus nearly always lies within the first this many tokens; only then is the vocabulary not sorted."""


@dataclass(frozen=True)
class Sampling:
    """Applied in this order: repeat penalty, temperature, top-k, top-p, min-p.

    temperature: 0 is greedy. top_k: 0 keeps all. top_p: 1 keeps all. min_p: drops tokens less likely than
    min_p times the likeliest; 0 keeps all. repeat_penalty (arXiv 1909.05858, section 4.1): the logit of a
    token of the last `repeat_window` is divided by it when positive, multiplied when negative; 1 is none.
    Raises UnsupportedError for a value out of range.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repeat_penalty: float = 1.0
    repeat_window: int = 64

    def __post_init__(self) -> None:
        limits = {
            "temperature": (0.0, 100.0),
            "top_k": (0, 1 << 31),
            "top_p": (1e-6, 1.0),
            "min_p": (0.0, 1.0),
            "repeat_penalty": (0.01, 100.0),
            "repeat_window": (0, 1 << 31),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not low <= value <= high:  # also refuses nan
                raise UnsupportedError(f"{name} is {value}", hint=f"a value from {low:g} to {high:g}")


def sample(
    logits: NDArray[np.float32], sampling: Sampling, recent: Sequence[int], random: np.random.Generator
) -> int:
    """Choose a token id. `logits`: float32 [vocab], left as it is; `recent`: the tokens so far, latest last.

    Equal logits: the lower id wins when greedy, and comes first in every cut otherwise.
    """
    if sampling.repeat_penalty != 1.0 and sampling.repeat_window and len(recent):
        seen = np.unique(np.asarray(recent[-sampling.repeat_window :], np.int64))
        seen = seen[seen >= 0]  # negative ids stand for images
        logits = logits.copy()
        values = logits[seen]
        logits[seen] = np.where(
            values > 0, values / sampling.repeat_penalty, values * sampling.repeat_penalty
        )
    if sampling.temperature == 0:
        return int(np.argmax(logits))
    scaled = logits.astype(np.float64) / sampling.temperature
    weights = np.exp(scaled - scaled.max())
    kept = np.arange(len(weights))
    if 0 < sampling.top_k < len(weights):
        kept = _largest(weights, sampling.top_k)
    if sampling.top_p < 1:
        kept = _nucleus(weights, kept, sampling.top_p)
    if sampling.min_p > 0:
        kept = kept[weights[kept] >= sampling.min_p * weights.max()]
    cumulative = np.cumsum(weights[kept])
    drawn = np.searchsorted(cumulative, random.random() * cumulative[-1], side="right")
    return int(kept[min(int(drawn), len(kept) - 1)])


def _largest(weights: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    """Indices of the `count` largest, largest first, the lower index first among equals."""
    edge = np.partition(weights, len(weights) - count)[len(weights) - count]
    above = np.flatnonzero(weights > edge)
    ties = np.flatnonzero(weights == edge)[: count - len(above)]
    found = np.concatenate([above, ties])
    return found[np.lexsort((found, -weights[found]))]


def _nucleus(weights: NDArray[np.float64], kept: NDArray[np.intp], top_p: float) -> NDArray[np.intp]:
    """The fewest likeliest of `kept` whose share reaches `top_p`."""
    total = weights[kept].sum()
    for count in (_HEAD, len(kept)):
        head = kept[_largest(weights[kept], min(count, len(kept)))]
        share = np.cumsum(weights[head])
        if share[-1] >= top_p * total or len(head) == len(kept):
            break
    return head[: int(np.searchsorted(share, top_p * total)) + 1]

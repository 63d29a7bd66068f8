"""Which experts a token goes to, and with which weights, from the scores that its router gives; float32 numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_Floats = NDArray[np.float32]


def softmax(scores: _Floats) -> _Floats:
    """Over the last axis, in place."""
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return scores


def sparsemixer(scores: _Floats, tolerance: float) -> tuple[NDArray[np.int64], _Floats]:
    """Which two experts, int64 [n, 2], and their weights, float32 [n, 2], from the router's scores [n, experts].

    SparseMixer at inference (arXiv 2409.12136, Phi-3.5-MoE's `sparsemixer`). The two weights do not sum to 1, and a
    constant added to all scores changes them.
    """
    every, left = np.arange(len(scores)), scores.copy()
    chosen, shares = np.empty((len(scores), 2), np.int64), np.empty((len(scores), 2), np.float32)
    for rank in range(2):
        best = left.argmax(axis=-1)
        top = left[every, best][:, None]
        # 0 / 0 is no distance: the comparison is false, and the score stays.
        with np.errstate(invalid="ignore"):
            far = (top - scores) / np.maximum(np.abs(scores), top) > np.float32(tolerance)
        chosen[:, rank] = best
        shares[:, rank] = softmax(np.where(far, -np.inf, left))[every, best]
        left[every, best] = -np.inf
    return chosen, shares


def best_two(scores: _Floats) -> tuple[NDArray[np.int64], _Floats]:
    """As `sparsemixer`, chosen and weighed by a softmax, the two weights made to sum to 1: what llama.cpp computes.

    It chooses by the float32 probabilities, and those of nearly equal scores are equal: so does this.
    """
    probabilities = softmax(scores.copy())
    chosen = np.argsort(-probabilities, axis=-1, kind="stable")[:, :2]
    shares: _Floats = np.take_along_axis(probabilities, chosen, axis=-1)
    return chosen, shares / shares.sum(axis=-1, keepdims=True)

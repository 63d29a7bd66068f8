"""What one prediction cost: log-likelihood of the text's token, divergence from the reference, the same favourite."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.float32]
_SCRATCH = 1 << 18
"""Values of float64 at once: they stay in the processor's cache."""


@dataclass(frozen=True)
class Scores:
    """Of one window, all [scored]: negative log-likelihoods in nats, KL(reference || artifact), equal argmax."""

    nll: NDArray[np.float64]
    reference_nll: NDArray[np.float64] | None
    kl: NDArray[np.float64] | None
    same_top: NDArray[np.bool_] | None


def score(artifact: Logits, reference: Logits | None, targets: NDArray[np.int64]) -> Scores:
    """Logits [scored, vocab] of both, token ids [scored]; in float64, a few rows at a time."""
    count, vocab = artifact.shape
    nll, base, kl = np.empty(count), np.empty(count), np.empty(count)
    same = np.empty(count, np.bool_)
    step = max(1, _SCRATCH // vocab)
    for start in range(0, count, step):
        rows = slice(start, min(start + step, count))
        at = (np.arange(rows.stop - start), targets[rows])
        q = _shifted(artifact[rows])
        log_q = np.log(np.exp(q).sum(-1))
        nll[rows] = log_q - q[at]
        if reference is None:
            continue
        p = _shifted(reference[rows])
        same[rows] = p.argmax(-1) == q.argmax(-1)
        weight = np.exp(p)
        total = weight.sum(-1)
        log_p = np.log(total)
        base[rows] = log_p - p[at]
        p -= q
        p *= weight
        kl[rows] = p.sum(-1) / total - log_p + log_q
    if reference is None:
        return Scores(nll, None, None, None)
    return Scores(nll, base, np.maximum(kl, 0.0), same)


def probabilities(logits: Logits) -> NDArray[np.float64]:
    """Softmax of one row, float64 [vocab]."""
    weight = np.exp(_shifted(logits))
    shares: NDArray[np.float64] = weight / weight.sum()
    return shares


def _shifted(logits: Logits) -> NDArray[np.float64]:
    values = logits.astype(np.float64)
    values -= values.max(-1, keepdims=True)
    return values

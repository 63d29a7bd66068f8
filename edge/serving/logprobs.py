"""How likely the tokens of an answer were, by the model's own logits: before temperature and every cut."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.runtimes.protocol import Runtime


@dataclass(frozen=True)
class Likely:
    """A token by its bytes, and the natural logarithm of its probability."""

    data: bytes
    logprob: float


@dataclass(frozen=True)
class Scored:
    """The token that was chosen, and the likeliest ones in its place, likeliest first."""

    chosen: Likely
    top: tuple[Likely, ...]


def score(runtime: Runtime, token: int, logits: NDArray[np.float32], top: int) -> Scored:
    """logits: float32 [vocab]."""
    shifted = logits.astype(np.float64) - logits.max()
    logprobs = shifted - np.log(np.exp(shifted).sum())
    best = np.argsort(-logprobs, kind="stable")[:top]

    def likely(each: int) -> Likely:
        return Likely(runtime.token_bytes(each), float(logprobs[each]))

    return Scored(likely(token), tuple(likely(int(i)) for i in best))

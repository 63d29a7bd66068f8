"""Which single weights stay: the highest scores over all matrices together, in an exact number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


def keep_highest(scores: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    """Boolean masks, True for the `count` highest scores of all tensors together.

    Of equal scores at the border the later ones stay. (A threshold alone, as published, prunes none of them: with
    many weights that were never touched, all at 0, it would prune nothing at all.)
    """
    flat = torch.cat([s.detach().reshape(-1) for s in scores.values()]).numpy()
    dropped = flat.size - count
    if not 0 <= dropped <= flat.size:
        raise ValueError(f"{count} of {flat.size} weights")
    keep = np.ones(flat.size, bool)
    if dropped:
        border = np.partition(flat, dropped - 1)[dropped - 1]
        below = flat < border
        keep[below] = False
        keep[np.flatnonzero(flat == border)[: dropped - int(below.sum())]] = False
    masks, at = {}, 0
    for name, score in scores.items():
        masks[name] = torch.from_numpy(keep[at : at + score.numel()]).view(score.shape)
        at += score.numel()
    return masks


class Unstructured:
    """Prunes single weights of some matrices, as in the paper. Exports the same shapes, with zeros."""

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        self._parameters = parameters
        self._masks: dict[str, Tensor] | None = None
        self.total = sum(p.numel() for p in parameters.values())

    def select(self, scores: Mapping[str, Tensor], ratio: float) -> None:
        """Choose the round(ratio * total) weights that stay."""
        self._masks = keep_highest(scores, round(ratio * self.total))

    @torch.no_grad()
    def apply(self) -> None:
        """Set the others to zero. Their gradients are left alone: until the next call they can grow again."""
        for name, mask in (self._masks or {}).items():
            self._parameters[name].masked_fill_(~mask, 0)

    def to_data(self) -> dict[str, Any]:
        """How many weights there are and how many are not zero."""
        left = sum(int(torch.count_nonzero(p)) for p in self._parameters.values())
        return {"weights": self.total, "nonzero": left}

"""Which rows of the S of all layers stay, by their mean sensitivity (LoSparse, arXiv 2306.11222, eqs. 6 and 7)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from quant.lowrank.factors import FactoredLinear
from quant.prune.importance import Importance
from quant.prune.weights import keep_highest


class RowImportance(Importance):
    """The moving average of |s dL/ds| alone, averaged over each row: [out] for every S. LoSparse leaves the uncertainty
    out."""

    def scores(self) -> dict[str, Tensor]:
        return {name: mean.mean(1) for name, mean in self.sensitivities().items()}


class Rows:
    """Sets rows to zero, all or nothing. A share of the rows stays; rows of all layers compete."""

    def __init__(self, layers: Mapping[str, FactoredLinear]) -> None:
        self.parameters: dict[str, Tensor] = {name: layer.sparse for name, layer in layers.items()}
        self.total = sum(len(s) for s in self.parameters.values())
        self._masks: dict[str, Tensor] = {}

    def select(self, scores: Mapping[str, Tensor], ratio: float) -> None:
        self._masks = keep_highest(scores, round(ratio * self.total))

    @torch.no_grad()
    def apply(self) -> None:
        for name, mask in self._masks.items():
            self.parameters[name].masked_fill_(~mask[:, None], 0)

    def to_data(self) -> dict[str, Any]:
        """Rows in all, and those left in each layer."""
        left = {name: int((s != 0).any(1).sum()) for name, s in self.parameters.items()}
        return {"rows": self.total, "left": left}

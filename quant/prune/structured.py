"""Prunes whole units, so that what is exported is a smaller model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers import Phi3ForCausalLM

from quant.prune.settings import Sizes
from quant.prune.slicing import silence
from quant.prune.units import Kept, choose, head_dim, sizes_of


class Structured:
    """Silences units of `model` until those of `target` are left."""

    def __init__(self, model: Phi3ForCausalLM, target: Sizes) -> None:
        self._model = model
        self.dim = head_dim(model.config)
        self.sizes, self.target = sizes_of(model.config), target
        self.kept: Kept | None = None

    def select(self, scores: Mapping[str, Tensor], ratio: float) -> None:
        """ratio: of what is to go, the part that is still there (1: all, 0: the target is reached)."""
        self.kept = choose(scores, self.sizes, self.sizes.toward(self.target, 1 - ratio), self.dim)

    def apply(self) -> None:
        if self.kept is not None:
            silence(self._model, self.kept, self.sizes, self.dim)

    def to_data(self) -> dict[str, Any]:
        """Which units stayed, by layer of the original."""
        assert self.kept is not None, "a run selects at its last step"
        layers = {
            str(i): {"groups": units.groups, "heads": units.heads, "neurons": units.neurons}
            for i, units in sorted(self.kept.layers.items())
        }
        return {"layers": layers}

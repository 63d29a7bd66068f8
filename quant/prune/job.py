"""What a method brings to a run: what it watches, what it prunes, and what it leaves in the checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import Phi3ForCausalLM

from quant.prune import phi3
from quant.prune.importance import Importance, Smoothing
from quant.prune.platon import Pruner
from quant.prune.settings import Settings
from quant.prune.slicing import sliced, sliced_config
from quant.prune.structured import Structured
from quant.prune.units import sizes_of
from quant.prune.weights import Unstructured

Written = tuple[dict[str, Tensor], dict[str, Any]]
"""Tensors by name, and config.json."""


class Job(Protocol):
    """`pruner` takes the scores of `importance`."""

    @property
    def importance(self) -> Importance: ...
    @property
    def pruner(self) -> Pruner: ...

    def written(self, dtypes: Mapping[str, torch.dtype], config: Mapping[str, Any]) -> Written:
        """The new checkpoint. dtypes, config: of the old one."""


def smoothing(settings: Settings) -> Smoothing:
    return Smoothing(settings.beta1, settings.beta2, settings.window)


class PlatonJob:
    """Single weights, or whole units."""

    def __init__(self, model: Phi3ForCausalLM, settings: Settings) -> None:
        self._model = model
        parameters = phi3.prunable(model)
        self.importance = Importance(parameters, smoothing(settings), settings.score)
        self.pruner: Unstructured | Structured
        if settings.keep is not None:
            self.pruner = Unstructured(parameters)
        else:
            self.pruner = Structured(model, sizes_of(model.config).part(settings.units))

    def written(self, dtypes: Mapping[str, torch.dtype], config: Mapping[str, Any]) -> Written:
        values = self._model.state_dict()
        tensors = {name: values[name].to(dtype) for name, dtype in dtypes.items()}
        if isinstance(self.pruner, Unstructured):
            return tensors, dict(config)
        kept, sizes, dim = self.pruner.kept, self.pruner.sizes, self.pruner.dim
        assert kept is not None, "a run selects at its last step"
        return sliced(tensors, kept, sizes, dim), sliced_config(config, self.pruner.target, dim)

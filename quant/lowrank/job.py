"""LoSparse as a job of `quant.prune.run`: the layers' matrices in factors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import Phi3ForCausalLM

from quant.lowrank.factors import compact, factor
from quant.lowrank.names import ARCHITECTURE, MODEL_TYPE
from quant.lowrank.rows import RowImportance, Rows
from quant.prune.job import Written, smoothing
from quant.prune.settings import Settings


class LoSparseJob:
    """Factors the model when it is made."""

    def __init__(self, model: Phi3ForCausalLM, settings: Settings) -> None:
        assert settings.low_rank is not None, "Settings.check"
        self._model = model
        self.layers = factor(model, settings.low_rank)
        self.pruner = Rows(self.layers)
        self.importance = RowImportance(self.pruner.parameters, smoothing(settings))

    def written(self, dtypes: Mapping[str, torch.dtype], config: Mapping[str, Any]) -> Written:
        values = self._model.state_dict()
        tensors: dict[str, Tensor] = {}
        for name, dtype in dtypes.items():
            module = name.removesuffix(".weight")
            if module in self.layers:
                parts = compact(module, self.layers[module])
                tensors |= {n: t if n.endswith("_rows") else t.to(dtype) for n, t in parts.items()}
            else:
                tensors[name] = values[name].to(dtype)
        own = {"model_type": MODEL_TYPE, "architectures": [ARCHITECTURE]}
        # auto_map names code that would make a dense model of it.
        return tensors, {key: value for key, value in config.items() if key != "auto_map"} | own

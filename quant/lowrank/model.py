"""A factored checkpoint (`converters.models.phi3_losparse`) as a model that trains on, and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import AutoConfig, Phi3ForCausalLM

from converters.checkpoint import Checkpoint
from quant.distill.quiet import quiet
from quant.lowrank.names import MODEL_TYPE
from quant.prune import phi3

_A = ".low_rank_a"


class CompactLinear(nn.Module):
    """y = b (a x) + the rows of `sparse`, each added at its own of the `outputs`: rows that were pruned are no
    parameters, and never come back."""

    outputs: Tensor

    def __init__(self, a: Tensor, b: Tensor, sparse: Tensor, outputs: Tensor) -> None:
        """a: [rank, in]; b: [out, rank]; sparse: [kept, in]; outputs: int64 [kept]."""
        super().__init__()
        self.low_rank_a, self.low_rank_b, self.sparse = (nn.Parameter(each) for each in (a, b, sparse))
        self.register_buffer("outputs", outputs, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        low_rank = linear(linear(x, self.low_rank_a), self.low_rank_b)
        return low_rank.index_add(-1, self.outputs, linear(x, self.sparse))


class LoSparseConfig(phi3.PrunedConfig):  # type: ignore[no-untyped-call]
    """Phi-3's, under the model type that says that some layers are in factors."""

    model_type = MODEL_TYPE


AutoConfig.register(MODEL_TYPE, LoSparseConfig)


class LoSparseModel(Phi3ForCausalLM):  # type: ignore[no-untyped-call]
    """Phi-3 with a `CompactLinear` where the checkpoint has factors. `load` makes one."""

    origin: dict[str, Any]
    """config.json of the checkpoint."""

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """The checkpoint with the values of now, in the parameters' dtype."""
        del args, kwargs
        dtype = self.lm_head.weight.dtype
        tensors = dict(self.state_dict())
        if self.config.tie_word_embeddings:
            del tensors["lm_head.weight"]
        for name, module in self.named_modules():
            if isinstance(module, CompactLinear):
                kept, columns = module.sparse.shape
                tensors[f"{name}.sparse"] = torch.cat([module.sparse, torch.zeros(1, columns, dtype=dtype)])
                rows = torch.full((len(module.low_rank_b),), kept, dtype=torch.float32)
                rows[module.outputs] = torch.arange(kept, dtype=torch.float32)
                tensors[f"{name}.sparse_rows"] = rows
        phi3.save(tensors, self.origin, Path(save_directory))


def is_factored(directory: Path) -> bool:
    """Whether the checkpoint in `directory` is one for `load`."""
    config: dict[str, Any] = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    return config.get("model_type") == MODEL_TYPE


def load(directory: Path) -> LoSparseModel:
    """The model in float32, of a checkpoint that `converters.models.describe` takes. safetensors only, no network."""
    quiet()
    with Checkpoint.open(directory) as checkpoint:
        tensors = {name: _read(checkpoint, name) for name in checkpoint.tensors}
        origin = dict(checkpoint.config)
    config = LoSparseConfig.from_pretrained(directory, local_files_only=True)
    model: LoSparseModel = LoSparseModel._from_config(  # type: ignore[no-untyped-call]
        config, dtype=torch.float32, attn_implementation="sdpa"
    )
    for name in [name.removesuffix(_A) for name in tensors if name.endswith(_A)]:
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, _compact(tensors, name))
    if config.tie_word_embeddings:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    model.load_state_dict({**model.state_dict(), **tensors})
    model.origin = origin
    return model


def _read(checkpoint: Checkpoint, name: str) -> Tensor:
    return torch.from_numpy(checkpoint.read(name).astype(np.float32))


def _compact(tensors: dict[str, Tensor], name: str) -> CompactLinear:
    """Takes the layer's tensors out of `tensors`."""
    a, b, sparse, rows = (
        tensors.pop(f"{name}.{part}") for part in ("low_rank_a", "low_rank_b", "sparse", "sparse_rows")
    )
    kept = len(sparse) - 1
    outputs = (rows < kept).nonzero().flatten()
    return CompactLinear(a, b, sparse[rows[outputs].long()], outputs)

"""A Phi-3 checkpoint as a model that can be trained, and back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import Phi3Config, Phi3ForCausalLM

from converters.checkpoint import Checkpoint
from quant.distill.quiet import quiet
from quant.prune.units import LAYER, MATRICES
from quant.tensor_file import write_tensors

_TORCH = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64}


class PrunedConfig(Phi3Config):  # type: ignore[no-untyped-call]
    """With LongRoPE and fewer heads than hidden_size / head_dim.

    Phi3Config (transformers 5.23) refuses that: it counts the factors that there must be by hidden_size / heads. The
    model itself goes by head_dim; `converters.rope_config` checks the factors against that.
    """

    def validate_rope(self) -> None:
        pass


def load(directory: Path) -> Phi3ForCausalLM:
    """The model of a `phi3` checkpoint in float32. safetensors only, no code of the checkpoint's, no network."""
    quiet()
    config = PrunedConfig.from_pretrained(directory, local_files_only=True)
    model = Phi3ForCausalLM.from_pretrained(
        directory, config=config, dtype=torch.float32, local_files_only=True, use_safetensors=True
    )
    assert isinstance(model, Phi3ForCausalLM)
    return model


def prunable(model: Phi3ForCausalLM) -> dict[str, Tensor]:
    """The four matrices of every layer by name. Embeddings, norms and lm_head are left alone, as in the paper."""
    parameters = dict(model.named_parameters())
    return {
        name: parameters[name]
        for i in range(model.config.num_hidden_layers)
        for name in (LAYER.format(i) + matrix for matrix in MATRICES)
    }


def header(directory: Path) -> tuple[dict[str, torch.dtype], dict[str, Any]]:
    """The dtype of every tensor of the checkpoint in `directory`, and its config."""
    with Checkpoint.open(directory) as checkpoint:
        dtypes = {name: _TORCH[info.dtype] for name, info in checkpoint.tensors.items()}
        return dtypes, checkpoint.config


@torch.no_grad()
def round_to(model: Phi3ForCausalLM, dtypes: Mapping[str, torch.dtype]) -> None:
    """Round every parameter to the dtype of the tensor, or of the matrix of the layer, that it is stored as."""
    for name, parameter in model.named_parameters():
        layer = f"{name.rpartition('.')[0]}.weight"
        parameter.copy_(parameter.to(dtypes[name if name in dtypes else layer]))


def save(tensors: Mapping[str, Tensor], config: Mapping[str, Any], directory: Path) -> None:
    """Write model.safetensors and config.json into `directory`."""
    labels = {dtype: label for label, dtype in _TORCH.items()}
    shapes = {name: (labels[tensor.dtype], tuple(tensor.shape)) for name, tensor in tensors.items()}

    def rows(name: str) -> Iterator[NDArray[Any]]:
        yield tensors[name].detach().contiguous().view(torch.uint8).numpy()

    write_tensors(directory / "model.safetensors", shapes, rows)
    (directory / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def zeros(directory: Path) -> int:
    """How many of the prunable weights that a written checkpoint stores are zero."""
    with Checkpoint.open(directory) as checkpoint:
        matrices = [name for name in checkpoint.tensors if name.endswith(MATRICES)]
        return sum(int((checkpoint.read(name) == 0).sum()) for name in matrices)

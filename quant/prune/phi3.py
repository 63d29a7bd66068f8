"""A Phi-3 checkpoint as a model that can be trained, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import Phi3ForCausalLM

from converters.checkpoint import Checkpoint
from converters.errors import UnsupportedError
from quant.prune.units import LAYER, MATRICES

MODEL_TYPE = "phi3"
_TORCH = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64}


def load(directory: Path) -> Phi3ForCausalLM:
    """The model in float32, ready to be trained. UnsupportedError for any other architecture."""
    with Checkpoint.open(directory) as checkpoint:
        model_type = checkpoint.config.get("model_type")
        if model_type != MODEL_TYPE:
            raise UnsupportedError(
                f"{directory}: model_type {str(model_type)!r:.80} cannot be pruned, only {MODEL_TYPE}",
                hint="choose a Phi-3, Phi-3.5-mini, Phi-4 or Phi-4-mini, or smollm2-135m-instruct",
            )
    model = Phi3ForCausalLM.from_pretrained(
        directory, dtype=torch.float32, local_files_only=True, use_safetensors=True
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


def state(model: Phi3ForCausalLM, directory: Path) -> dict[str, Tensor]:
    """The tensors that the checkpoint in `directory` has, with the model's values, each in the checkpoint's dtype."""
    with Checkpoint.open(directory) as checkpoint:
        dtypes = {name: _TORCH[info.dtype] for name, info in checkpoint.tensors.items()}
    values = model.state_dict()
    return {name: values[name].to(dtype) for name, dtype in dtypes.items()}


def save(tensors: Mapping[str, Tensor], config: Mapping[str, Any], directory: Path) -> None:
    """Write model.safetensors and config.json into `directory`."""
    contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    save_file(contiguous, directory / "model.safetensors", metadata={"format": "pt"})
    (directory / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def zeros(directory: Path) -> int:
    """How many of the prunable weights that a written checkpoint stores are zero."""
    count = 0
    with safe_open(directory / "model.safetensors", "pt") as file:
        for name in file.keys():  # noqa: SIM118  # it is no dict
            if name.endswith(MATRICES):
                tensor = file.get_tensor(name)
                count += tensor.numel() - int(torch.count_nonzero(tensor))
    return count

"""The weights that a student begins with: its teacher's, where the cut keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from quant.distill.cut import LAYER, Cut, Kind
from quant.distill.encoder_axes import axes
from quant.distill.models import new_model

Indices = NDArray[np.int64]


def cut_student(teacher: Any, kind: Kind, cut: Cut) -> Any:
    """The student: a transformers model whose weights are the teacher's where `cut` keeps them."""
    student = new_model(teacher.config, kind, dict(cut.changes))
    weights = teacher.state_dict()
    channels = _channels(teacher, cut) if cut.narrower else None
    kept: dict[str, torch.Tensor] = {}
    for name in student.state_dict():
        found = LAYER.match(name)
        source = f"{found[1]}{cut.layers[int(found[2])]}{found[3]}" if found else name
        tensor = weights[source]
        if channels is not None:
            prefix = f"{found[1]}{cut.layers[int(found[2])]}." if found else ""
            tensor = (
                _narrow_encoder(name, tensor, channels, _parts(weights, prefix, teacher.config, cut))
                if kind == "encoder"
                else _narrow(name, tensor, channels, _neurons(weights, prefix, cut), teacher.config, cut)
            )
        kept[name] = tensor.clone()
    student.load_state_dict(kept)
    student.tie_weights()
    return student


def _channels(teacher: Any, cut: Cut) -> Indices:
    """The channels of the residual stream with the largest embeddings, in their order: one choice for every layer."""
    energy = teacher.get_input_embeddings().weight.detach().double().square().sum(0).numpy()
    return _largest(energy, cut.changes["hidden_size"])


def _neurons(weights: Mapping[str, torch.Tensor], prefix: str, cut: Cut) -> Indices:
    """A layer's MLP neurons with the largest product of the norms of what they read (gate, up) and write."""
    if not prefix:
        return np.zeros(0, np.int64)
    gate, up = weights[f"{prefix}mlp.gate_up_proj.weight"].double().chunk(2)
    down = weights[f"{prefix}mlp.down_proj.weight"].double()
    size = gate.norm(dim=1) * up.norm(dim=1) * down.norm(dim=0)
    return _largest(size.numpy(), cut.changes["intermediate_size"])


def _parts(weights: Mapping[str, torch.Tensor], prefix: str, config: Any, cut: Cut) -> dict[str, Indices]:
    """A BERT layer's heads and MLP neurons with the largest product of the norms of what they read and write."""
    if not prefix:
        return {}
    size = config.hidden_size // config.num_attention_heads
    value = weights[f"{prefix}attention.self.value.weight"].double().norm(dim=1)
    out = weights[f"{prefix}attention.output.dense.weight"].double().norm(dim=0)
    heads = _largest((value * out).reshape(-1, size).sum(1).numpy(), cut.changes["num_attention_heads"])
    read = weights[f"{prefix}intermediate.dense.weight"].double().norm(dim=1)
    write = weights[f"{prefix}output.dense.weight"].double().norm(dim=0)
    return {
        "heads": (heads[:, None] * size + np.arange(size)).ravel(),
        "neurons": _largest((read * write).numpy(), cut.changes["intermediate_size"]),
    }


def _narrow_encoder(
    name: str, tensor: torch.Tensor, channels: Indices, parts: Mapping[str, Indices]
) -> torch.Tensor:
    """Rows and columns of one tensor of a BERT."""
    kept = {"channels": channels, **parts}
    for axis, over in zip(range(tensor.ndim), axes(name), strict=False):
        if over in kept:
            tensor = tensor.index_select(axis, torch.from_numpy(kept[over]))
    return tensor


def _largest(values: NDArray[np.float64], count: int) -> Indices:
    """Ascending indices of the `count` largest; of equal ones the first."""
    return np.sort(np.argsort(-values, kind="stable")[:count])


def _narrow(
    name: str, tensor: torch.Tensor, channels: Indices, neurons: Indices, config: Any, cut: Cut
) -> torch.Tensor:
    """Rows and columns of one tensor of the Phi-3 layout. Of the heads the first groups stay."""
    size = cut.changes["head_dim"]
    heads, groups = config.num_attention_heads, config.num_key_value_heads
    q = np.arange(cut.changes["num_attention_heads"] * size)
    kv = np.arange(cut.changes["num_key_value_heads"] * size)
    qkv = np.concatenate([q, heads * size + kv, (heads + groups) * size + kv])
    gate_up = np.concatenate([neurons, config.intermediate_size + neurons])
    rows = {"qkv_proj": qkv, "gate_up_proj": gate_up, "o_proj": channels, "down_proj": channels}
    columns = {"o_proj": q, "down_proj": neurons}
    kind = name.removesuffix(".weight").rpartition(".")[2]
    if tensor.ndim == 1:
        return tensor[channels]
    if kind in rows:
        tensor = tensor[rows[kind]]
    return tensor[:, columns.get(kind, channels)]

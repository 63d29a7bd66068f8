"""Units are taken out of a Phi-3 model: first by zeros while it trains, then by smaller tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from quant.prune.settings import Sizes
from quant.prune.units import DOWN, GATE_UP, LAYER, OUT, QKV, Kept, LayerUnits


def head_channels(units: LayerUnits, sizes: Sizes, dim: int) -> Tensor:
    """Indices of the kept query heads' channels, which are rows of q and columns of o. int64 [n]."""
    pairs = zip(units.groups, units.heads, strict=True)
    heads = [g * sizes.heads + h for g, kept in pairs for h in kept]
    return _channels(heads, dim)


def _channels(heads: list[int] | tuple[int, ...], dim: int) -> Tensor:
    return (torch.tensor(heads, dtype=torch.int64)[:, None] * dim + torch.arange(dim)).reshape(-1)


@torch.no_grad()
def silence(model: nn.Module, kept: Kept, sizes: Sizes, dim: int) -> None:
    """Set the columns by which the other units write into the residual stream to zero.

    Only those: were the rows that feed a unit zero too, every gradient of it would be zero, and no unit could ever
    come back before the end, as a weight can in unstructured pruning.
    """
    parameters = dict(model.named_parameters())
    for i in range(sizes.layers):
        o, down = (parameters[LAYER.format(i) + name] for name in (OUT, DOWN))
        if i in kept.layers:
            _zero_others(o, head_channels(kept.layers[i], sizes, dim))
            _zero_others(down, torch.tensor(kept.layers[i].neurons))
        else:
            o.zero_()
            down.zero_()


def _zero_others(matrix: Tensor, columns: Tensor) -> None:
    gone = torch.ones(matrix.shape[1], dtype=torch.bool)
    gone[columns] = False
    matrix[:, gone] = 0


def sliced(state: Mapping[str, Tensor], kept: Kept, sizes: Sizes, dim: int) -> dict[str, Tensor]:
    """The tensors of the smaller model, in the order of `state`. It computes what the silenced one does."""
    renumbered = {old: new for new, old in enumerate(sorted(kept.layers))}
    smaller = {}
    for name, tensor in state.items():
        if not name.startswith("model.layers."):
            smaller[name] = tensor
            continue
        index, rest = name.removeprefix("model.layers.").split(".", 1)
        if int(index) in renumbered:
            prefix = LAYER.format(renumbered[int(index)])
            smaller[prefix + rest] = _part(rest, tensor, kept.layers[int(index)], sizes, dim)
    return smaller


def _part(name: str, tensor: Tensor, units: LayerUnits, sizes: Sizes, dim: int) -> Tensor:
    heads = head_channels(units, sizes, dim)
    groups, neurons = _channels(units.groups, dim), torch.tensor(units.neurons)
    if name == QKV:
        k = sizes.groups * sizes.heads * dim
        return tensor[torch.cat([heads, k + groups, k + sizes.groups * dim + groups])]
    if name == GATE_UP:
        return tensor[torch.cat([neurons, sizes.neurons + neurons])]
    if name in (OUT, DOWN):
        return tensor[:, heads if name == OUT else neurons]
    return tensor


def sliced_config(config: Mapping[str, Any], target: Sizes, dim: int) -> dict[str, Any]:
    """config.json of a model of `target` sizes. head_dim is said: hidden_size / heads gives it no more."""
    return dict(config) | {
        "head_dim": dim,
        "intermediate_size": target.neurons,
        "num_attention_heads": target.groups * target.heads,
        "num_hidden_layers": target.layers,
        "num_key_value_heads": target.groups,
    }

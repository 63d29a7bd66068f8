"""The units of a Phi-3 model that can go as a whole: layers, key-value groups, query heads, neurons of the MLP.

A config has one number of each for all layers, so every layer keeps as many as every other, and chooses them for
itself; whole layers compete with each other. (Scores are the means of their weights' scores, as for the rows of
LoSparse, arXiv 2306.11222, eq. 7.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import Phi3Config

from quant.prune.settings import Sizes

LAYER = "model.layers.{}."
QKV, OUT, GATE_UP, DOWN = MATRICES = (
    "self_attn.qkv_proj.weight",
    "self_attn.o_proj.weight",
    "mlp.gate_up_proj.weight",
    "mlp.down_proj.weight",
)


@dataclass(frozen=True)
class LayerUnits:
    """What one layer keeps, as ascending indices. heads: one tuple for each kept group, counted within the group."""

    groups: tuple[int, ...]
    heads: tuple[tuple[int, ...], ...]
    neurons: tuple[int, ...]


@dataclass(frozen=True)
class Kept:
    """What the model keeps: layer index -> its units."""

    layers: Mapping[int, LayerUnits]


def head_dim(config: Phi3Config) -> int:
    """Channels of a head."""
    own = getattr(config, "head_dim", None)
    return int(own or config.hidden_size // config.num_attention_heads)


def sizes_of(config: Phi3Config) -> Sizes:
    groups = config.num_key_value_heads or config.num_attention_heads
    return Sizes(
        config.num_hidden_layers, groups, config.num_attention_heads // groups, config.intermediate_size
    )


@dataclass(frozen=True)
class LayerScores:
    """Mean score of a weight in each unit. groups: [groups]; heads: [groups, heads]; neurons: [neurons]."""

    layer: float
    groups: Tensor
    heads: Tensor
    neurons: Tensor


def layer_scores(scores: Mapping[str, Tensor], index: int, sizes: Sizes, dim: int) -> LayerScores:
    """Scores of one layer's units from those of its matrices, which are in [out, in] order."""
    qkv, o, gate_up, down = (scores[LAYER.format(index) + name] for name in MATRICES)
    hidden, width = o.shape[0], sizes.groups * sizes.heads * dim
    q = qkv[:width].reshape(sizes.groups, sizes.heads, -1).sum(-1)
    kv = qkv[width:].reshape(2, sizes.groups, -1).sum((0, -1))
    heads = q + o.reshape(hidden, sizes.groups, sizes.heads, dim).sum((0, 3))
    neurons = gate_up.reshape(2, sizes.neurons, hidden).sum((0, 2)) + down.sum(0)
    total = sum(float(each.sum()) for each in (heads, kv, neurons))
    return LayerScores(
        layer=total / sum(each.numel() for each in (qkv, o, gate_up, down)),
        groups=(heads.sum(1) + kv) / (2 * (sizes.heads + 1) * dim * hidden),
        heads=heads / (2 * dim * hidden),
        neurons=neurons / (3 * hidden),
    )


def best(scores: Tensor, count: int) -> tuple[int, ...]:
    """Indices of the `count` highest scores, ascending; of equal ones the first."""
    order = torch.sort(scores, descending=True, stable=True).indices
    return tuple(sorted(order[:count].tolist()))


def choose(scores: Mapping[str, Tensor], sizes: Sizes, target: Sizes, dim: int) -> Kept:
    """Exactly `target` units of a model of `sizes`, by the scores of its matrices."""
    each = [layer_scores(scores, i, sizes, dim) for i in range(sizes.layers)]
    kept = {}
    for i in best(torch.tensor([s.layer for s in each]), target.layers):
        groups = best(each[i].groups, target.groups)
        heads = tuple(best(each[i].heads[g], target.heads) for g in groups)
        kept[i] = LayerUnits(groups, heads, best(each[i].neurons, target.neurons))
    return Kept(kept)

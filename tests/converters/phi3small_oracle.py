"""Phi-3-small in float64 numpy, from the formulas of its paper (arXiv 2404.14219, section 2) and its public code: no
library at hand has it. It shares no code with the project."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

Array = NDArray[np.float64]


class Phi3Small:
    """A whole checkpoint. `unused`: the ids whose logits the original sets to the least float; here they are left."""

    def __init__(self, checkpoint: Path) -> None:
        self._config: dict[str, Any] = json.loads((checkpoint / "config.json").read_text())
        tensors = load_file(checkpoint / "model.safetensors")
        self._w = {name: tensor.to(torch.float64).numpy() for name, tensor in tensors.items()}

    def logits(self, ids: Sequence[int], total: int | None = None) -> Array:
        """After each of `ids`, [len(ids), vocabulary]; `total`: the length by which LongRoPE chooses its factors."""
        c, w = self._config, self._w
        x = w["model.embed_tokens.weight"][list(ids)] * c["mup_embedding_multiplier"]
        cos, sin = self._rotation(len(ids), total or len(ids))
        for i in range(c["num_hidden_layers"]):
            layer = f"model.layers.{i}."
            dense = (i + 1) % c["dense_attention_every_n_layers"] == 0
            x = x + self._attention(layer, self._norm(x, layer + "input_layernorm"), cos, sin, dense=dense)
            both = self._linear(self._norm(x, layer + "post_attention_layernorm"), layer + "mlp.up_proj")
            limit = c["gegelu_limit"]
            gate, linear = np.minimum(both[:, 0::2], limit), np.clip(both[:, 1::2], -limit, limit)
            x = x + self._linear(gate / (1 + np.exp(-1.702 * gate)) * (linear + 1), layer + "mlp.down_proj")
        x = self._norm(x, "model.final_layernorm")
        return x @ w["model.embed_tokens.weight"].T / c["mup_width_multiplier"]

    def clamped(self, ids: Sequence[int]) -> float:
        """The share of GEGELU inputs of layer 0 that its limit changes."""
        x = self._w["model.embed_tokens.weight"][list(ids)] * self._config["mup_embedding_multiplier"]
        both = self._linear(
            self._norm(x, "model.layers.0.post_attention_layernorm"), "model.layers.0.mlp.up_proj"
        )
        return float((np.abs(both) > self._config["gegelu_limit"]).mean())

    def _linear(self, x: Array, name: str) -> Array:
        return x @ self._w[name + ".weight"].T + self._w[name + ".bias"]

    def _norm(self, x: Array, name: str) -> Array:
        x = x - x.mean(-1, keepdims=True)
        scaled = x / np.sqrt((x * x).mean(-1, keepdims=True) + self._config["layer_norm_epsilon"])
        return scaled * self._w[name + ".weight"] + self._w[name + ".bias"]

    def _rotation(self, length: int, total: int) -> tuple[Array, Array]:
        c = self._config
        size = c["hidden_size"] // c["num_attention_heads"]
        frequencies = c["rope_embedding_base"] ** (-np.arange(0, size, 2) / size)
        scale = 1.0
        if rope := c.get("rope_scaling"):
            which = "long" if total > rope["original_max_position_embeddings"] else "short"
            frequencies, scale = frequencies / np.array(rope[f"{which}_factor"]), rope[f"{which}_mscale"]
        angles = np.outer(np.arange(length), frequencies)
        return np.cos(angles) * scale, np.sin(angles) * scale

    def _attention(self, layer: str, x: Array, cos: Array, sin: Array, *, dense: bool) -> Array:
        c, length = self._config, len(x)
        heads, kv_heads = c["num_attention_heads"], c["num_key_value_heads"]
        size, group = x.shape[1] // heads, heads // kv_heads
        grouped = self._linear(x, layer + "self_attn.query_key_value").reshape(
            length, kv_heads, group + 2, size
        )
        keys, values = self._rotated(grouped[:, :, group], cos, sin), grouped[:, :, group + 1]
        queries = self._rotated(grouped[:, :, :group].reshape(length, heads, size), cos, sin)
        scale = c["mup_attn_multiplier"] / size if c["mup_use_scaling"] else 1 / math.sqrt(size)
        mixed = np.empty((length, heads, size))
        for head in range(heads):
            scores = queries[:, head] @ keys[:, head // group].T * scale
            scores[~self._seen(head, length, dense=dense)] = -np.inf
            shares = np.exp(scores - scores.max(-1, keepdims=True))
            mixed[:, head] = shares / shares.sum(-1, keepdims=True) @ values[:, head // group]
        return self._linear(mixed.reshape(length, -1), layer + "self_attn.dense")

    def _seen(self, head: int, length: int, *, dense: bool) -> NDArray[np.bool_]:
        """Position by position, as the original's dense mask of its kernel's tests."""
        c, seen = self._config, np.tril(np.ones((length, length), bool))
        if dense:
            return seen
        size, stride = c["blocksparse_block_size"], c["blocksparse_vert_stride"]
        step = 0 if c["blocksparse_homo_head_pattern"] else max(1, int(stride / c["num_attention_heads"]))
        for q in range(length):
            for k in range(q + 1):
                near = q // size - k // size < c["blocksparse_num_local_blocks"]
                seen[q, k] = near or (k // size + head * step + 1) % stride == 0
        return seen

    @staticmethod
    def _rotated(heads: Array, cos: Array, sin: Array) -> Array:
        first, second = np.split(heads, 2, -1)
        cos, sin = cos[:, None], sin[:, None]
        return np.concatenate([first * cos - second * sin, second * cos + first * sin], -1)

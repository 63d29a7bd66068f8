"""SambaY in float64 numpy, from the equations of arXiv 2507.06607, 2312.00752 and 2410.05258 and the names of the
published checkpoint: no library at hand computes Phi-4-mini-flash-reasoning. It shares no code with the project."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

Array = NDArray[np.float64]


class SambaY:
    """A whole checkpoint; `replace` maps a tensor's name to the values to compute with instead."""

    def __init__(self, checkpoint: Path, replace: Callable[[str], Array | None] = lambda _: None) -> None:
        self._config: dict[str, Any] = json.loads((checkpoint / "config.json").read_text())
        self._w: dict[str, Array] = {}
        for name, tensor in load_file(checkpoint / "model.safetensors").items():
            other = replace(name)
            self._w[name] = tensor.to(torch.float64).numpy() if other is None else other

    def logits(self, ids: Sequence[int]) -> Array:
        """After each of `ids`, [len(ids), vocabulary]."""
        c, w = self._config, self._w
        x = w["model.embed_tokens.weight"][list(ids)]
        half = c["num_hidden_layers"] // 2
        memory = keys = values = np.zeros(0)
        for i in range(c["num_hidden_layers"]):
            layer = f"model.layers.{i}."
            normed = self._layer_norm(x, layer + "input_layernorm")
            mixer = layer + "attn."
            if i % 2 == 0 and i < half + 2:
                memory, y = self._mamba(mixer, normed)
            elif i % 2 == 0:
                y = (silu(normed @ w[mixer + "in_proj.weight"].T) * memory) @ w[mixer + "out_proj.weight"].T
            else:
                q, keys, values = self._qkv(mixer, normed, keys, values)
                y = self._attention(mixer, i, q, keys, values, c["sliding_window"] if i < half else None)
            x = x + y
            gate, up = np.split(
                self._layer_norm(x, layer + "post_attention_layernorm") @ w[layer + "mlp.fc1.weight"].T, 2, -1
            )
            x = x + (up * silu(gate)) @ w[layer + "mlp.fc2.weight"].T
        return self._layer_norm(x, "model.final_layernorm") @ w["model.embed_tokens.weight"].T

    def _layer_norm(self, x: Array, name: str) -> Array:
        x = x - x.mean(-1, keepdims=True)
        scaled = x / np.sqrt((x * x).mean(-1, keepdims=True) + self._config["layer_norm_eps"])
        return scaled * self._w[name + ".weight"] + self._w[name + ".bias"]

    def _mamba(self, name: str, x: Array) -> tuple[Array, Array]:
        w, states = {key: self._w.get(name + key) for key in _MAMBA}, self._config["mamba_d_state"]
        u, z = np.split(x @ w["in_proj.weight"].T, 2, -1)
        taps = w["conv1d.weight"].shape[2]
        convolved = np.zeros_like(u)
        for t in range(len(u)):
            for j in range(min(taps, t + 1)):
                convolved[t] += w["conv1d.weight"][:, 0, taps - 1 - j] * u[t - j]
        u = silu(convolved + w["conv1d.bias"])
        selected = u @ w["x_proj.weight"].T
        step, enter, leave = (
            selected[:, : -2 * states],
            selected[:, -2 * states : -states],
            selected[:, -states:],
        )
        step = np.log1p(np.exp(step @ w["dt_proj.weight"].T + w["dt_proj.bias"]))
        rate = -np.exp(w["A_log"])
        state, y = np.zeros_like(rate), np.empty_like(u)
        for t in range(len(u)):
            state = np.exp(step[t, :, None] * rate) * state + np.outer(step[t] * u[t], enter[t])
            y[t] = state @ leave[t] + w["D"] * u[t]
        return y, (y * silu(z)) @ w["out_proj.weight"].T

    def _qkv(self, name: str, x: Array, keys: Array, values: Array) -> tuple[Array, Array, Array]:
        heads, kv_heads = self._config["num_attention_heads"], self._config["num_key_value_heads"]
        size = x.shape[1] // heads
        projected = (x @ self._w[name + "Wqkv.weight"].T + self._w[name + "Wqkv.bias"]).reshape(
            len(x), -1, size
        )
        if projected.shape[1] > heads:
            keys, values = projected[:, heads : heads + kv_heads], projected[:, heads + kv_heads :]
        return projected[:, :heads], keys, values

    def _attention(self, name: str, depth: int, q: Array, k: Array, v: Array, window: int | None) -> Array:
        length, heads, size = q.shape
        group = heads // k.shape[1]
        inner = {key: self._w[f"{name}inner_cross_attn.{key}"] for key in _LAMBDAS}
        start = 0.8 - 0.6 * math.exp(-0.3 * depth)
        factor = start + math.exp(inner["lambda_q1"] @ inner["lambda_k1"])
        factor -= math.exp(inner["lambda_q2"] @ inner["lambda_k2"])
        behind = np.arange(length)[:, None] - np.arange(length)
        unseen = (behind < 0) | (behind >= (window or length))
        out = np.empty((length, heads // 2, 2 * size))
        for i in range(heads // 2):
            pair = 2 * (i // group)
            both = np.concatenate([v[:, pair], v[:, pair + 1]], -1)
            attended = []
            for side in (0, 1):
                scores = q[:, 2 * i + side] @ k[:, pair + side].T / math.sqrt(size)
                shares = np.exp(np.where(unseen, -np.inf, scores))
                attended.append(shares / shares.sum(-1, keepdims=True) @ both)
            mixed = attended[0] - factor * attended[1]
            scale = (1 - start) / np.sqrt((mixed * mixed).mean(-1, keepdims=True) + 1e-5)
            out[:, i] = mixed * scale * inner["subln.weight"]
        return out.reshape(length, -1) @ self._w[name + "out_proj.weight"].T + self._w[name + "out_proj.bias"]


_MAMBA = (
    "in_proj.weight", "conv1d.weight", "conv1d.bias", "x_proj.weight", "dt_proj.weight", "dt_proj.bias", "A_log",
    "D", "out_proj.weight",
)  # fmt: skip
_LAMBDAS = ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2", "subln.weight")


def silu(x: Array) -> Array:
    return x / (1 + np.exp(-x))

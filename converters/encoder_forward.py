"""What the parts of an encoder compute, in plain float32 numpy; it shares no code with any graph."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from converters.encoders import Activation, LayerNorm, Linear, Mlp, SelfAttention
from converters.forward import Floats
from converters.reference import Streamed


def linear(weights: Streamed, layer: Linear, inputs: Floats) -> Floats:
    """inputs [..., columns] to float32 [..., rows]."""
    flat = inputs.reshape(-1, inputs.shape[-1])
    if layer.weight.zero_columns:
        flat = np.pad(flat, ((0, 0), (0, layer.weight.zero_columns)))
    flat = weights.project(layer.weight, flat)
    flat += weights.whole(layer.bias)
    return flat.reshape(*inputs.shape[:-1], -1)


def layer_norm(weights: Streamed, norm: LayerNorm, inputs: Floats, eps: float) -> Floats:
    """Over the last axis, mean and variance taken in float64."""
    wide = inputs.astype(np.float64)
    wide -= wide.mean(axis=-1, keepdims=True)
    wide /= np.sqrt(np.mean(np.square(wide), axis=-1, keepdims=True) + eps)
    outputs: Floats = wide.astype(np.float32) * weights.whole(norm.gain) + weights.whole(norm.bias)
    return outputs


def activate(kind: Activation, inputs: Floats) -> Floats:
    """Elementwise, in float64."""
    wide = inputs.astype(np.float64)
    if kind == "gelu":
        share = 0.5 * (1 + np.asarray(_erf(wide / math.sqrt(2)), np.float64))
    elif kind == "gelu_tanh":
        share = 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (wide + 0.044715 * wide**3)))
    else:
        share = _sigmoid(1.702 * wide)
    outputs: Floats = (wide * share).astype(np.float32)
    return outputs


_erf = np.frompyfunc(math.erf, 1, 1)


def swish(inputs: Floats) -> Floats:
    """x sigmoid(x), elementwise."""
    wide = inputs.astype(np.float64)
    return (wide * _sigmoid(wide)).astype(np.float32)


def mlp(weights: Streamed, layer: Mlp, inputs: Floats, kind: Activation) -> Floats:
    return linear(weights, layer.down, activate(kind, linear(weights, layer.up, inputs)))


def attend(
    weights: Streamed,
    layer: SelfAttention,
    inputs: Floats,
    heads: int,
    *,
    visible: NDArray[np.bool_] | None = None,
    bias: Floats | None = None,
) -> Floats:
    """Self-attention over normed inputs [sequences, length, hidden].

    `visible` [sequences, length]: which keys are seen; a query that sees none mixes to zeros, as the original's
    masked softmax does. `bias` [heads, length, length] is added to the scaled scores.
    """
    count, length, hidden = inputs.shape
    size = hidden // heads
    q, k, v = (
        linear(weights, part, inputs).reshape(count, length, heads, size)
        for part in (layer.q, layer.k, layer.v)
    )
    mixed = np.empty_like(q)
    for i in range(count):
        keys = slice(None) if visible is None else visible[i]
        for head in range(heads):
            scores = q[i, :, head] @ k[i, keys, head].T * np.float32(size**-0.5)
            if not scores.size:
                mixed[i, :, head] = 0
                continue
            if bias is not None:
                scores += bias[head][:, keys]
            np.exp(scores - scores.max(axis=-1, keepdims=True), out=scores)
            mixed[i, :, head] = scores @ v[i, keys, head] / scores.sum(axis=-1, keepdims=True)
    return linear(weights, layer.o, mixed.reshape(inputs.shape))


def _sigmoid(wide: NDArray[np.float64]) -> NDArray[np.float64]:
    # exp(-x) of a very negative x overflows float64 only below -709, where the sigmoid is 0 anyway.
    return 1 / (1 + np.exp(-np.maximum(wide, -700)))

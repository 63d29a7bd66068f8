"""What one decoder layer computes, in plain float32 numpy.

It shares no table or graph code with any writer, so that an error there cannot hide here. Where a weight's rows
come from (streamed in chunks, resident, quantized) is the business of whoever implements `Weights`.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from converters.decoder import Attention, Decoder, Layer, Rope, Weight

SCORE_BYTES = 1 << 24
"""Most float32 bytes of attention scores at once."""

Floats = NDArray[np.float32]


class Weights(Protocol):
    """The weights of a layer, by their handles."""

    def vector(self, weight: Weight) -> Floats:
        """float32 [n]."""

    def project(self, weight: Weight, inputs: Floats) -> Floats:
        """inputs [n, columns] times the transposed weight: float32 [n, rows]."""


def run_layer(
    weights: Weights, layer: Layer, decoder: Decoder, hidden: Floats, cos: Floats, sin: Floats
) -> None:
    """One decoder layer over the residual stream [length, hidden] of one sequence, in place."""
    normed = rms_norm(hidden, weights.vector(layer.input_norm), decoder.norm_eps)
    hidden += weights.project(layer.o, attention_mix(weights, layer, decoder.attention, normed, cos, sin))
    normed = rms_norm(hidden, weights.vector(layer.post_attention_norm), decoder.norm_eps)
    hidden += weights.project(layer.down, swiglu_mix(weights, layer, normed))


def rope_table(rope: Rope, length: int) -> tuple[Floats, Floats]:
    """cos and sin for positions 0..length-1 of a sequence of `length`, each float32 [length, dim / 2].

    Angles are taken in float64: rounded to float32 they are off by up to 2**-24 of themselves, 2.4e-4 at
    position 4100, which is what runtimes differ by there.
    """
    exponents = np.arange(0, rope.dim, 2, dtype=np.float64) / rope.dim
    frequencies = rope.theta**-exponents
    factors = rope.long_factors if length > rope.original_context else rope.short_factors
    if factors is not None:
        frequencies /= np.asarray(factors, np.float64)
    angles = np.outer(np.arange(length, dtype=np.float64), frequencies)
    scale = rope.attention_factor
    return (np.cos(angles) * scale).astype(np.float32), (np.sin(angles) * scale).astype(np.float32)


def rotate(heads: Floats, cos: Floats, sin: Floats) -> None:
    """Rotate the first 2 * cos.shape[1] channels of heads [n, heads, head_dim] in place, half-split order."""
    half = cos.shape[1]
    first = heads[..., :half].copy()
    second = heads[..., half : 2 * half].copy()
    cos, sin = cos[:, None], sin[:, None]
    heads[..., :half] = first * cos - second * sin
    heads[..., half : 2 * half] = second * cos + first * sin


def rms_norm(inputs: Floats, gain: Floats, eps: float) -> Floats:
    """arXiv 1910.07467 over the last axis, with the mean square taken in float64."""
    square = np.mean(np.square(inputs, dtype=np.float64), axis=-1, keepdims=True)
    outputs: Floats = (inputs / np.sqrt(square + eps)).astype(np.float32)
    outputs *= gain
    return outputs


def attention_mix(
    weights: Weights, layer: Layer, attention: Attention, inputs: Floats, cos: Floats, sin: Floats
) -> Floats:
    """What the output projection takes: the heads' mixed values, float32 [length, heads * head_dim].

    `inputs` [length, hidden] is one normed sequence from position 0.
    """
    length, size = inputs.shape[0], attention.head_dim
    queries = weights.project(layer.q, inputs).reshape(length, attention.heads, size)
    keys = weights.project(layer.k, inputs).reshape(length, attention.kv_heads, size)
    values = weights.project(layer.v, inputs).reshape(length, attention.kv_heads, size)
    rotate(queries, cos, sin)
    rotate(keys, cos, sin)
    mixed = np.empty_like(queries)
    group = attention.heads // attention.kv_heads
    step = max(1, SCORE_BYTES // (4 * length))
    for start in range(0, length, step):
        stop = min(start + step, length)
        # The first key that some query of this block may see.
        low = 0 if attention.window is None else max(0, start - attention.window + 1)
        hidden = masked(start, stop, low, attention.window)
        for head in range(attention.heads):
            scores = queries[start:stop, head] @ keys[low:stop, head // group].T
            scores *= np.float32(attention.scale)
            scores[hidden] = -np.inf
            mixed[start:stop, head] = softmax(scores) @ values[low:stop, head // group]
    return mixed.reshape(length, -1)


def masked(start: int, stop: int, low: int, window: int | None) -> NDArray[np.bool_]:
    """Which of the keys low..stop-1 the queries start..stop-1 must not see, [queries, keys]."""
    queries, keys = np.arange(start, stop)[:, None], np.arange(low, stop)
    later = keys > queries
    return later if window is None else later | (keys <= queries - window)


def softmax(scores: Floats) -> Floats:
    """Over the last axis, in place."""
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return scores


def swiglu_mix(weights: Weights, layer: Layer, inputs: Floats) -> Floats:
    """What the down projection takes: silu(gate x) * up x, arXiv 2002.05202, float32 [n, intermediate]."""
    gate = weights.project(layer.gate, inputs)
    # Below -80 exp(-x) would overflow float32; silu is 0 there in float32 anyway.
    gate /= 1 + np.exp(-np.maximum(gate, -80))
    gate *= weights.project(layer.up, inputs)
    return gate

"""What one decoder layer computes, in plain float32 numpy.

It shares no table or graph code with any writer, so that an error there cannot hide here. Where a weight's rows
come from (streamed in chunks, resident, quantized) is the business of whoever implements `Weights`.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from converters.decoder import (
    UNUSED_LOGIT,
    Attention,
    BlockSparse,
    Decoder,
    Experts,
    Factored,
    GatedMlp,
    GegeluMlp,
    Layer,
    Rope,
    RoutedMlp,
    Weight,
)
from converters.routing import best_two, softmax, sparsemixer

SCORE_BYTES = 1 << 24
"""Most float32 bytes of attention scores at once."""

Floats = NDArray[np.float32]
Tokens = NDArray[np.int64]


class Weights(Protocol):
    """The weights of a layer, by their handles."""

    def vector(self, weight: Weight) -> Floats:
        """float32 [n]."""

    def project(self, weight: Weight, inputs: Floats) -> Floats:
        """inputs [n, columns] times the transposed weight: float32 [n, rows]."""


def run_layer(
    weights: Weights,
    layer: Layer,
    decoder: Decoder,
    hidden: Floats,
    cos: Floats,
    sin: Floats,
    tokens: Tokens | None = None,
) -> None:
    """One decoder layer over the residual stream [length, hidden] of one sequence, in place. `tokens` as `run_mlp`."""
    run_attention(weights, layer, decoder, hidden, cos, sin)
    run_mlp(weights, layer, decoder, hidden, tokens)


def run_attention(
    weights: Weights, layer: Layer, decoder: Decoder, hidden: Floats, cos: Floats, sin: Floats
) -> None:
    """The first half of `run_layer`."""
    normed = norm(weights, decoder, layer.input_norm, layer.input_norm_bias, hidden)
    mixed = attention_mix(weights, layer, decoder.attention, normed, cos, sin)
    hidden += linear(weights, layer.o, layer.o_bias, mixed)


def run_mlp(
    weights: Weights, layer: Layer, decoder: Decoder, hidden: Floats, tokens: Tokens | None = None
) -> None:
    """The second half, over tokens [n, hidden] of any number of sequences, in place.

    tokens: their ids int64 [n], by which a RoutedMlp chooses; ValueError where it has none.
    """
    normed = norm(weights, decoder, layer.post_attention_norm, layer.post_attention_norm_bias, hidden)
    if isinstance(layer.mlp, Experts):
        hidden += mixture(weights, layer.mlp, normed)
    elif isinstance(layer.mlp, GegeluMlp):
        hidden += linear(weights, layer.mlp.down, layer.mlp.down_bias, gegelu_mix(weights, layer.mlp, normed))
    elif isinstance(layer.mlp, RoutedMlp):
        hidden += routed(weights, layer.mlp, normed, tokens)
    else:
        hidden += weights.project(layer.mlp.down, swiglu_mix(weights, layer.mlp, normed))


def linear(weights: Weights, weight: Weight, bias: Weight | None, inputs: Floats) -> Floats:
    """inputs [n, columns] times the transposed weight, plus the bias: float32 [n, rows]."""
    outputs = weights.project(weight, inputs)
    return outputs if bias is None else outputs + weights.vector(bias)


def norm(weights: Weights, decoder: Decoder, gain: Weight, bias: Weight | None, inputs: Floats) -> Floats:
    """The decoder's norm over the last axis, with this gain and bias."""
    if decoder.norm == "layer":
        mean = np.mean(inputs, axis=-1, keepdims=True, dtype=np.float64)
        inputs = (inputs - mean).astype(np.float32)
    outputs = rms_norm(inputs, weights.vector(gain), decoder.norm_eps)
    return outputs if bias is None else outputs + weights.vector(bias)


def rope_table(rope: Rope, length: int) -> tuple[Floats, Floats]:
    """cos and sin for positions 0..length-1 of a sequence of `length`, each float32 [length, dim / 2].

    Angles are taken in float64: rounded to float32 they are off by up to 2**-24 of themselves, 2.4e-4 at
    position 4100, which is what runtimes differ by there.
    """
    exponents = np.arange(0, rope.dim, 2, dtype=np.float64) / rope.dim
    frequencies = rope.theta**-exponents
    factors, scale = rope.at(length)
    if factors is not None:
        frequencies /= np.asarray(factors, np.float64)
    angles = np.outer(np.arange(length, dtype=np.float64), frequencies)
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
    queries = linear(weights, layer.q, layer.q_bias, inputs).reshape(length, attention.heads, size)
    keys = linear(weights, layer.k, layer.k_bias, inputs).reshape(length, attention.kv_heads, size)
    values = linear(weights, layer.v, layer.v_bias, inputs).reshape(length, attention.kv_heads, size)
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
            if layer.sparse is not None:
                scores[~block_visible(layer.sparse, head, start, stop)] = -np.inf
            mixed[start:stop, head] = softmax(scores) @ values[low:stop, head // group]
    return mixed.reshape(length, -1)


def masked(start: int, stop: int, low: int, window: int | None) -> NDArray[np.bool_]:
    """Which of the keys low..stop-1 the queries start..stop-1 must not see, [queries, keys]."""
    queries, keys = np.arange(start, stop)[:, None], np.arange(low, stop)
    later = keys > queries
    return later if window is None else later | (keys <= queries - window)


def block_visible(sparse: BlockSparse, head: int, start: int, stop: int) -> NDArray[np.bool_]:
    """Which of the keys 0..stop-1 lie in blocks that the queries start..stop-1 of `head` see, [queries, keys]."""
    queries, keys = np.arange(start, stop)[:, None] // sparse.block, np.arange(stop) // sparse.block
    vertical = (keys + 1 + head * sparse.step) % sparse.stride == 0
    visible: NDArray[np.bool_] = (queries - keys < sparse.local) | vertical
    return visible


def swiglu_mix(weights: Weights, mlp: GatedMlp, inputs: Floats) -> Floats:
    """What the down projection takes: silu(gate x) * up x, arXiv 2002.05202, float32 [n, intermediate]."""
    gate = weights.project(mlp.gate, inputs)
    # Below -80 exp(-x) would overflow float32; silu is 0 there in float32 anyway.
    gate /= 1 + np.exp(-np.maximum(gate, -80))
    gate *= weights.project(mlp.up, inputs)
    return gate


def factored(weights: Weights, factors: Factored, inputs: Floats) -> Floats:
    """b (a x) + (sparse x)[rows], float32 [n, out]."""
    outputs = weights.project(factors.b, weights.project(factors.a, inputs))
    outputs += weights.project(factors.sparse, inputs)[:, list(factors.rows)]
    return outputs


def gegelu_mix(weights: Weights, mlp: GegeluMlp, inputs: Floats) -> Floats:
    """What the down projection takes: float32 [n, intermediate]."""
    both = linear(weights, mlp.gate_up, mlp.gate_up_bias, inputs)
    gate = np.minimum(both[:, ::2], np.float32(mlp.limit))
    # Below -40 the sigmoid of 1.702 times it is 0 in float32, and exp would overflow not much further.
    gate /= 1 + np.exp(np.float32(-1.702) * np.maximum(gate, -40))
    gate *= np.clip(both[:, 1::2], -mlp.limit, mlp.limit) + 1
    return gate


def finish_logits(decoder: Decoder, logits: Floats) -> Floats:
    """What lm_head gives, scaled and without the tokens that are none, in place."""
    if decoder.logit_scale != 1:
        logits *= np.float32(decoder.logit_scale)
    if decoder.unused_tokens:
        logits[:, list(decoder.unused_tokens)] += np.float32(UNUSED_LOGIT)
    return logits


def mixture(weights: Weights, mlp: Experts, inputs: Floats) -> Floats:
    """The weighted sum of each token's two experts, float32 [n, hidden]; an expert that no token chose is not read."""
    scores = weights.project(mlp.router, inputs)
    by_softmax = mlp.routing == "softmax"
    chosen, shares = best_two(scores) if by_softmax else sparsemixer(scores, mlp.tolerance)
    outputs = np.zeros_like(inputs)
    for index in np.unique(chosen).tolist():
        tokens, rank = np.nonzero(chosen == index)
        expert = mlp.experts[index]
        mixed = weights.project(expert.down, swiglu_mix(weights, expert, inputs[tokens]))
        outputs[tokens] += shares[tokens, rank, None] * mixed
    return outputs


def routed(weights: Weights, mlp: RoutedMlp, inputs: Floats, tokens: Tokens | None) -> Floats:
    """What each token's expert says, float32 [n, hidden]; an expert that no token has is not read."""
    if tokens is None:
        raise ValueError(f"{mlp.table.name}: tokens are routed by their ids, and none are given")
    route = weights.vector(mlp.table)[tokens].astype(np.int64)
    outputs = np.empty_like(inputs)
    for index in np.unique(route).tolist():
        own, expert = route == index, mlp.experts[index]
        outputs[own] = weights.project(expert.down, swiglu_mix(weights, expert, inputs[own]))
    return outputs

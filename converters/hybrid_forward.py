"""What one block of a hybrid decoder computes, in plain float32 numpy: `converters.forward` for `converters.hybrid`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from converters.decoder import Attention
from converters.forward import (
    SCORE_BYTES,
    Floats,
    Weights,
    linear,
    masked,
    norm,
    rms_norm,
    swiglu_mix,
)
from converters.hybrid import (
    SUB_NORM_EPS,
    Block,
    DifferentialAttention,
    GatedMemory,
    HybridDecoder,
    Mamba,
)
from converters.routing import softmax


@dataclass
class Carried:
    """What the blocks of one sequence hand on: y of the last Mamba layer, float32 [length, width], and the keys and
    values of the last layer that made some, [length, kv_heads, head_dim]."""

    memory: Floats | None = None
    keys: Floats | None = None
    values: Floats | None = None


def run_block(
    weights: Weights, block: Block, decoder: HybridDecoder, hidden: Floats, carried: Carried
) -> None:
    """One block over the residual stream [length, hidden] of one sequence, in place."""
    normed = norm(weights, decoder, block.input_norm, block.input_norm_bias, hidden)
    if isinstance(block.mixer, Mamba):
        hidden += mamba(weights, block.mixer, normed, carried)
    elif isinstance(block.mixer, GatedMemory):
        assert carried.memory is not None
        gated = _silu(weights.project(block.mixer.gate, normed)) * carried.memory
        hidden += weights.project(block.mixer.out, gated)
    else:
        mixed = differential_mix(weights, block.mixer, decoder.attention, normed, carried)
        hidden += linear(weights, block.mixer.o, block.mixer.o_bias, mixed)
    normed = norm(weights, decoder, block.post_norm, block.post_norm_bias, hidden)
    hidden += weights.project(block.mlp.down, swiglu_mix(weights, block.mlp, normed))


def mamba(weights: Weights, mixer: Mamba, inputs: Floats, carried: Carried) -> Floats:
    """The output of a Mamba layer, float32 [length, hidden]; its y is carried. `inputs` is one normed sequence."""
    length, width, taps = len(inputs), mixer.width, mixer.taps
    both = weights.project(mixer.inputs, inputs)
    gate = both[:, width:]
    kernel = weights.vector(mixer.conv)[:, 0]
    before = np.concatenate([np.zeros((taps - 1, width), np.float32), both[:, :width]])
    u = weights.vector(mixer.conv_bias) + sum(before[i : i + length] * kernel[:, i] for i in range(taps))
    u = _silu(u)
    selected = weights.project(mixer.selection, u)
    rank, states = mixer.step_rank, mixer.states
    step, enter, leave = np.split(selected, [rank, rank + states], axis=-1)
    step = linear(weights, mixer.step, mixer.step_bias, step)
    step = np.logaddexp(step, np.float32(0))
    rate = -np.exp(weights.vector(mixer.decay))
    state = np.zeros_like(rate)
    y = weights.vector(mixer.skip) * u
    for t in range(length):
        state *= np.exp(step[t][:, None] * rate)
        state += (step[t] * u[t])[:, None] * enter[t]
        y[t] += state @ leave[t]
    carried.memory = y
    return weights.project(mixer.out, y * _silu(gate))


def differential_mix(
    weights: Weights, mixer: DifferentialAttention, attention: Attention, inputs: Floats, carried: Carried
) -> Floats:
    """What the output projection takes, float32 [length, hidden]."""
    length, size = len(inputs), attention.head_dim
    queries = linear(weights, mixer.q, mixer.q_bias, inputs).reshape(length, attention.kv_heads, -1, size)
    if mixer.k is not None and mixer.v is not None:
        shape = (length, attention.kv_heads, size)
        carried.keys = linear(weights, mixer.k, mixer.k_bias, inputs).reshape(shape)
        carried.values = linear(weights, mixer.v, mixer.v_bias, inputs).reshape(shape)
    assert carried.keys is not None
    assert carried.values is not None
    factor = subtracted(weights, mixer)
    group = attention.heads // attention.kv_heads
    mixed = np.empty((length, attention.heads // 2, 2 * size), np.float32)
    step = max(1, SCORE_BYTES // (4 * length))
    for start in range(0, length, step):
        rows = slice(start, min(start + step, length))
        hidden = masked(rows.start, rows.stop, 0, mixer.window)
        for pair in range(attention.kv_heads // 2):
            value = carried.values[: rows.stop, 2 * pair : 2 * pair + 2].reshape(rows.stop, -1)
            for i in range(group):
                first, second = (
                    _shares(queries[rows, head, i], carried.keys[: rows.stop, head], attention.scale, hidden)
                    for head in (2 * pair, 2 * pair + 1)
                )
                mixed[rows, pair * group + i] = first @ value - factor * (second @ value)
    gain = weights.vector(mixer.sub_norm) * np.float32(1 - mixer.start)
    return rms_norm(mixed, gain, SUB_NORM_EPS).reshape(length, -1)


def subtracted(weights: Weights, mixer: DifferentialAttention) -> np.float32:
    """What the second attention is multiplied by."""
    q1, k1, q2, k2 = (weights.vector(weight).astype(np.float64) for weight in mixer.lambdas)
    return np.float32(np.exp(q1 @ k1) - np.exp(q2 @ k2) + mixer.start)


def _shares(queries: Floats, keys: Floats, scale: float, hidden: NDArray[np.bool_]) -> Floats:
    scores = queries @ keys.T
    scores *= np.float32(scale)
    scores[hidden] = -np.inf
    return softmax(scores)


def _silu(x: Floats) -> Floats:
    # Below -80 exp(-x) would overflow float32; silu is 0 there in float32 anyway.
    outputs: Floats = x / (1 + np.exp(-np.maximum(x, -80)))
    return outputs

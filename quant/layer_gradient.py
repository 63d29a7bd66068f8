"""The backward pass of one decoder layer over one sequence, in plain float32 numpy.

The forward pass is `converters.forward` itself, with every projection recorded; here are only the derivatives.
`d_x` is the gradient of the loss with respect to x, of x's shape.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from converters.decoder import Attention, Decoder, Layer, Weight
from converters.forward import SCORE_BYTES, Floats, masked, rms_norm, rotate, run_layer
from converters.reference import Resident
from converters.routing import softmax


class Observer:
    """What a backward pass shows, one window (sequence) at a time; each method does nothing until overridden.

    Arrays belong to the pass: copy what is to be kept. Layers come last first.
    """

    def on_layer(self, layer: Layer, weights: Resident) -> None:
        """Before the windows of a layer: its weights in float32."""

    def on_linear(self, weight: Weight, inputs: Floats, gradients: Floats) -> None:
        """outputs = inputs @ weight.T: inputs [tokens, columns], and the gradient at the outputs [tokens, rows]."""

    def on_gain(self, weight: Weight, gradient: Floats) -> None:
        """The gradient of a norm's gain, [n], summed over the window's tokens."""

    def on_head(self, start: int, rows: Floats, inputs: Floats, probabilities: Floats) -> None:
        """Rows [start, start + n) of lm_head [n, hidden], its inputs [scored, hidden], and what the model makes of
        them: the probabilities [scored, n] of the tokens start..start + n - 1."""

    def on_embedding(self, tokens: NDArray[np.int64], gradients: Floats) -> None:
        """The window's token ids [length], and the gradients [length, hidden] at their embeddings."""


def layer_backward(
    weights: Resident,
    layer: Layer,
    decoder: Decoder,
    hidden: Floats,
    d_out: Floats,
    cos: Floats,
    sin: Floats,
    observer: Observer,
) -> Floats:
    """From the gradient at a layer's output to the one at its input `hidden`, both [length, width]."""
    record = _Record(weights)
    run_layer(record, layer, decoder, hidden.copy(), cos, sin)

    def through(weight: Weight, gradients: Floats) -> Floats:
        observer.on_linear(weight, record.inputs[weight.name], gradients)
        d_inputs: Floats = gradients @ weights.matrix(weight)
        return d_inputs

    def through_norm(weight: Weight, inputs: Floats, gradients: Floats) -> Floats:
        gain = weights.vector(weight)
        d_inputs, d_gain = rms_norm_backward(inputs, gain, decoder.norm_eps, gradients)
        observer.on_gain(weight, d_gain)
        return d_inputs

    gate, up = record.outputs[layer.dense.gate.name], record.outputs[layer.dense.up.name]
    d_gate, d_up = _swiglu_backward(gate, up, through(layer.dense.down, d_out))
    d_normed = through(layer.dense.gate, d_gate) + through(layer.dense.up, d_up)
    middle = hidden + record.outputs[layer.o.name]
    d_middle = d_out + through_norm(layer.post_attention_norm, middle, d_normed)
    d_queries, d_keys, d_values = _attention_backward(
        record, layer, decoder.attention, cos, sin, through(layer.o, d_middle)
    )
    d_normed = through(layer.q, d_queries) + through(layer.k, d_keys) + through(layer.v, d_values)
    return d_middle + through_norm(layer.input_norm, hidden, d_normed)


def rms_norm_backward(inputs: Floats, gain: Floats, eps: float, d_outputs: Floats) -> tuple[Floats, Floats]:
    """(d_inputs, d_gain) of `converters.forward.rms_norm`, [n, width] and [width].

    With x = inputs, r = (mean(x^2) + eps)^(-1/2) and outputs = gain r x:  dr/dx_i = -r^3 x_i / width.
    """
    unit = rms_norm(inputs, np.ones_like(gain), eps)
    square = np.mean(np.square(inputs, dtype=np.float64), axis=-1, keepdims=True)
    scale = (1 / np.sqrt(square + eps)).astype(np.float32)
    d_unit = d_outputs * gain
    along = np.mean(d_unit * unit, axis=-1, keepdims=True)
    d_gain: Floats = np.sum(d_outputs * unit, axis=0)
    return scale * (d_unit - unit * along), d_gain


class _Record:
    """`converters.forward.Weights` that keeps what goes into each projection and what comes out of it."""

    def __init__(self, weights: Resident) -> None:
        self._weights = weights
        self.inputs: dict[str, Floats] = {}
        self.outputs: dict[str, Floats] = {}

    def vector(self, weight: Weight) -> Floats:
        return self._weights.vector(weight)

    def project(self, weight: Weight, inputs: Floats) -> Floats:
        outputs = self._weights.project(weight, inputs)
        self.inputs[weight.name] = inputs
        # A copy: the layer goes on in place.
        self.outputs[weight.name] = outputs.copy()
        return outputs


def _swiglu_backward(gate: Floats, up: Floats, d_mixed: Floats) -> tuple[Floats, Floats]:
    """(d_gate, d_up) of silu(gate) * up; silu' = s + gate s (1 - s), s the sigmoid."""
    sigmoid: Floats = np.reciprocal(1 + np.exp(-np.maximum(gate, -80)))
    silu = gate * sigmoid
    return d_mixed * up * (sigmoid + silu * (1 - sigmoid)), d_mixed * silu


def _attention_backward(
    record: _Record, layer: Layer, attention: Attention, cos: Floats, sin: Floats, d_mixed: Floats
) -> tuple[Floats, Floats, Floats]:
    """The gradients at the outputs of q, k and v, from the one at the heads' mixed values, all [length, ...].

    With P = softmax(scale Q K'), M = P V:  dV = P' dM,  dP = dM V',  dS = P * (dP - rowsum(dM * M)).
    The scores are made anew, a block of queries at a time.
    """
    length, size = len(d_mixed), attention.head_dim
    queries, keys, values = (
        record.outputs[weight.name].reshape(length, -1, size) for weight in (layer.q, layer.k, layer.v)
    )
    rotate(queries, cos, sin)
    rotate(keys, cos, sin)
    d_queries, d_keys, d_values = np.zeros_like(queries), np.zeros_like(keys), np.zeros_like(values)
    mixed = record.inputs[layer.o.name].reshape(queries.shape)
    d_mixed = d_mixed.reshape(queries.shape)
    along = np.sum(d_mixed * mixed, axis=-1)
    group, scale = attention.heads // attention.kv_heads, np.float32(attention.scale)
    step = max(1, SCORE_BYTES // (4 * length))
    for start in range(0, length, step):
        stop = min(start + step, length)
        low = 0 if attention.window is None else max(0, start - attention.window + 1)
        unseen = masked(start, stop, low, attention.window)
        for head in range(attention.heads):
            here, kv = (slice(start, stop), head), (slice(low, stop), head // group)
            scores = queries[here] @ keys[kv].T
            scores *= scale
            scores[unseen] = -np.inf
            shares = softmax(scores)
            d_values[kv] += shares.T @ d_mixed[here]
            d_scores = d_mixed[here] @ values[kv].T
            d_scores -= along[here][:, None]
            d_scores *= shares
            d_scores *= scale
            d_queries[here] = d_scores @ keys[kv]
            d_keys[kv] += d_scores.T @ queries[here]
    # A rotation's transpose is the rotation back; the amplitude of LongRoPE stays.
    rotate(d_queries, cos, -sin)
    rotate(d_keys, cos, -sin)
    return d_queries.reshape(length, -1), d_keys.reshape(length, -1), d_values.reshape(length, -1)

"""The independent float32 evaluator of a Decoder: what every artifact is proven against.

Plain numpy, layer by layer. A weight is read in row chunks of at most CHUNK_BYTES of float32 and forgotten,
and attention is taken over blocks of queries: peak memory depends on the width of the model and the number
of positions, never on its depth. It shares no table or graph code with any writer, so that an error there
cannot hide here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from converters.checkpoint import Checkpoint
from converters.decoder import Attention, Decoder, Layer, Rope, Weight

CHUNK_BYTES = 1 << 24
"""Most float32 bytes of a weight, or of attention scores, at once."""

Floats = NDArray[np.float32]
Transform = Callable[[Weight, NDArray[np.generic]], Floats]


def logits(
    checkpoint: Checkpoint,
    decoder: Decoder,
    ids: Sequence[int],
    *,
    transform: Transform | None = None,
) -> Floats:
    """Teacher-forced logits after each of `ids`, float32 [len(ids), vocab_size].

    `transform` maps raw rows of a weight, as stored, to the float32 rows to compute with; give it a codec's
    round trip to learn what an artifact *should* say. LongRoPE takes the factors of the length len(ids).
    Raises ValueError for an empty or out-of-range `ids`.
    """
    tokens = np.asarray(ids, np.int64)
    if tokens.size == 0 or tokens.min() < 0 or tokens.max() >= decoder.vocab_size:
        raise ValueError(f"ids must be 1 or more tokens in 0..{decoder.vocab_size - 1}")
    weights = _Weights(checkpoint, transform or _widen)
    hidden = weights.gather(decoder.embedding, tokens)
    cos, sin = rope_table(decoder.rope, tokens.size)
    for layer in decoder.layers:
        normed = _rms_norm(hidden, weights.vector(layer.input_norm), decoder.norm_eps)
        hidden += _attend(weights, layer, decoder.attention, normed, cos, sin)
        normed = _rms_norm(hidden, weights.vector(layer.post_attention_norm), decoder.norm_eps)
        hidden += _swiglu(weights, layer, normed)
    hidden = _rms_norm(hidden, weights.vector(decoder.final_norm), decoder.norm_eps)
    return weights.project(decoder.lm_head, hidden)


def _widen(_: Weight, rows: NDArray[np.generic]) -> Floats:
    return rows.astype(np.float32)


class _Weights:
    """Streams the weights of a checkpoint through `transform`."""

    def __init__(self, checkpoint: Checkpoint, transform: Transform) -> None:
        self._checkpoint = checkpoint
        self._transform = transform

    def vector(self, weight: Weight) -> Floats:
        return self._transform(weight, self._checkpoint.weight_rows(weight, 0, weight.rows))

    def chunks(self, weight: Weight) -> Iterator[tuple[int, Floats]]:
        """(first row, rows [n, columns]), all of the weight in order."""
        step = max(1, CHUNK_BYTES // (4 * weight.shape[1]))
        for start in range(0, weight.rows, step):
            stop = min(start + step, weight.rows)
            yield start, self._transform(weight, self._checkpoint.weight_rows(weight, start, stop))

    def gather(self, weight: Weight, rows: NDArray[np.int64]) -> Floats:
        """Single rows [len(rows), columns]; each distinct one is read once."""
        distinct, where = np.unique(rows, return_inverse=True)
        found = np.empty((distinct.size, weight.shape[1]), np.float32)
        for i, row in enumerate(distinct.tolist()):
            found[i] = self._transform(weight, self._checkpoint.weight_rows(weight, row, row + 1))[0]
        return found[where]

    def project(self, weight: Weight, inputs: Floats) -> Floats:
        """inputs [n, columns] times the transposed weight: [n, rows]."""
        outputs = np.empty((inputs.shape[0], weight.rows), np.float32)
        for start, rows in self.chunks(weight):
            np.matmul(inputs, rows.T, out=outputs[:, start : start + rows.shape[0]])
        return outputs


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


def _rotate(heads: Floats, cos: Floats, sin: Floats) -> None:
    """Rotate the first 2 * cos.shape[1] channels of heads [n, heads, head_dim] in place, half-split order."""
    half = cos.shape[1]
    first = heads[..., :half].copy()
    second = heads[..., half : 2 * half].copy()
    cos, sin = cos[:, None], sin[:, None]
    heads[..., :half] = first * cos - second * sin
    heads[..., half : 2 * half] = second * cos + first * sin


def _rms_norm(inputs: Floats, gain: Floats, eps: float) -> Floats:
    """arXiv 1910.07467, with the mean square taken in float64."""
    square = np.mean(np.square(inputs, dtype=np.float64), axis=-1, keepdims=True)
    outputs: Floats = (inputs / np.sqrt(square + eps)).astype(np.float32)
    outputs *= gain
    return outputs


def _attend(
    weights: _Weights, layer: Layer, attention: Attention, inputs: Floats, cos: Floats, sin: Floats
) -> Floats:
    length, size = inputs.shape[0], attention.head_dim
    queries = weights.project(layer.q, inputs).reshape(length, attention.heads, size)
    keys = weights.project(layer.k, inputs).reshape(length, attention.kv_heads, size)
    values = weights.project(layer.v, inputs).reshape(length, attention.kv_heads, size)
    _rotate(queries, cos, sin)
    _rotate(keys, cos, sin)
    mixed = np.empty_like(queries)
    group = attention.heads // attention.kv_heads
    step = max(1, CHUNK_BYTES // (4 * length))
    for start in range(0, length, step):
        stop = min(start + step, length)
        # The first key that some query of this block may see.
        low = 0 if attention.window is None else max(0, start - attention.window + 1)
        masked = _masked(start, stop, low, attention.window)
        for head in range(attention.heads):
            scores = queries[start:stop, head] @ keys[low:stop, head // group].T
            scores *= np.float32(attention.scale)
            scores[masked] = -np.inf
            mixed[start:stop, head] = _softmax(scores) @ values[low:stop, head // group]
    return weights.project(layer.o, mixed.reshape(length, -1))


def _masked(start: int, stop: int, low: int, window: int | None) -> NDArray[np.bool_]:
    """Which of the keys low..stop-1 the queries start..stop-1 must not see, [queries, keys]."""
    queries, keys = np.arange(start, stop)[:, None], np.arange(low, stop)
    later = keys > queries
    return later if window is None else later | (keys <= queries - window)


def _softmax(scores: Floats) -> Floats:
    """Over the last axis, in place."""
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return scores


def _swiglu(weights: _Weights, layer: Layer, inputs: Floats) -> Floats:
    """down(silu(gate x) * up x), arXiv 2002.05202."""
    gate = weights.project(layer.gate, inputs)
    # Below -80 exp(-x) would overflow float32; silu is 0 there in float32 anyway.
    gate /= 1 + np.exp(-np.maximum(gate, -80))
    gate *= weights.project(layer.up, inputs)
    return weights.project(layer.down, gate)

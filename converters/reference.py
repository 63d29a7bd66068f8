"""The independent float32 evaluator of a Decoder: what every artifact is proven against.

Layer by layer. `logits` (one sequence) reads a weight in row chunks of at most CHUNK_BYTES of float32 and forgets
them; `hidden_states` (many windows) holds one layer's weights in float32. Peak memory depends on the width of the
model and the number of positions, never on its depth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from converters.decoder import Decoder, Experts, Layer, Lora, Weight
from converters.errors import CheckpointError
from converters.forward import (
    Floats,
    factored,
    finish_logits,
    linear,
    norm,
    rope_table,
    run_attention,
    run_layer,
    run_mlp,
)
from converters.hybrid import Block, HybridDecoder
from converters.hybrid_forward import Carried, run_block
from converters.lora import Adapted
from converters.rewriting import RowSource

__all__ = ["Resident", "Streamed", "Transform", "check_finite", "head_logits", "hidden_states", "logits"]

CHUNK_BYTES = 1 << 24
"""Most float32 bytes of a weight at once."""

Transform = Callable[[Weight, int, NDArray[np.generic]], Floats]
"""(weight, first row, raw rows as stored) to the float32 rows to compute with."""


def logits(
    checkpoint: RowSource,
    decoder: Decoder,
    ids: Sequence[int],
    *,
    transform: Transform | None = None,
    adapter: Lora | None = None,
) -> Floats:
    """Teacher-forced logits after each of `ids`, float32 [len(ids), vocab_size], with `adapter` where one is given.

    `transform` maps raw rows of a weight to the float32 rows to compute with (default: plain widening); give it a
    codec's round trip to learn what an artifact *should* say. LongRoPE takes the factors of the length len(ids).
    Raises ValueError for an empty or out-of-range `ids`.
    """
    tokens = _check(decoder, np.asarray(ids, np.int64))
    hidden = Streamed(checkpoint, transform).gather(decoder.embedding, tokens)
    hidden *= np.float32(decoder.embedding_scale)
    return decode(checkpoint, decoder, hidden, transform=transform, adapter=adapter, tokens=tokens)


def decode(
    checkpoint: RowSource,
    decoder: Decoder,
    hidden: Floats,
    *,
    last: int | None = None,
    transform: Transform | None = None,
    adapter: Lora | None = None,
    built_in: bool = False,
    tokens: NDArray[np.int64] | None = None,
) -> Floats:
    """Logits after the `last` positions (default: all) of what the first layer takes, `hidden` [length, hidden size],
    which is overwritten: float32 [last, vocab_size].

    `built_in`: the adapter's halves are stored as weights are, and `transform` maps their rows too. `tokens`: int64
    [length], for a decoder that routes by them.
    """
    weights = Streamed(checkpoint, transform)
    halves = weights if built_in else Streamed(checkpoint)
    layers = weights if adapter is None else Adapted(weights, halves, adapter)
    if isinstance(decoder, HybridDecoder):
        carried = Carried()
        for block in decoder.blocks:
            run_block(weights, block, decoder, hidden, carried)
    else:
        cos, sin = rope_table(decoder.rope, len(hidden))
        for layer in decoder.layers:
            run_layer(layers, layer, decoder, hidden, cos, sin, tokens)
    hidden = hidden if last is None else hidden[-last:]
    hidden = norm(weights, decoder, decoder.final_norm, decoder.final_norm_bias, hidden)
    return finish_logits(decoder, linear(weights, decoder.lm_head, decoder.lm_head_bias, hidden))


def hidden_states(
    checkpoint: RowSource,
    decoder: Decoder,
    windows: NDArray[np.int64],
    *,
    transform: Transform | None = None,
    advance: Callable[[int], None] | None = None,
) -> Floats:
    """What lm_head takes, after the final norm, for many sequences: float32 [n, length, hidden].

    windows: token ids [n, length], each row a sequence of its own from position 0. Every weight is read once, and
    one layer of them is in memory. `advance` is told 1 after every layer. Raises ValueError as `logits` does, and
    CheckpointError naming the layer after which a value is not finite.
    """
    _check(decoder, windows)
    streamed = Streamed(checkpoint, transform)
    hidden = streamed.gather(decoder.embedding, windows.reshape(-1)).reshape(*windows.shape, -1)
    hidden *= np.float32(decoder.embedding_scale)
    if isinstance(decoder, HybridDecoder):
        _run_blocks(streamed, decoder, hidden, advance)
    cos, sin = rope_table(decoder.rope, windows.shape[1])
    for index, layer in enumerate(decoder.layers):
        weights = Resident(streamed, layer)
        for sequence in hidden:
            run_attention(weights, layer, decoder, sequence, cos, sin)
        # Experts are not resident: each is read once, for all windows together.
        together = isinstance(layer.mlp, Experts)
        if together:
            run_mlp(weights, layer, decoder, hidden.reshape(-1, hidden.shape[-1]))
        else:
            for sequence, ids in zip(hidden, windows, strict=True):
                run_mlp(weights, layer, decoder, sequence, ids)
        check_finite(hidden, f"after layer {index}")
        if advance:
            advance(1)
    for sequence in hidden:
        sequence[:] = norm(streamed, decoder, decoder.final_norm, decoder.final_norm_bias, sequence)
    return hidden


def _run_blocks(
    streamed: Streamed, decoder: HybridDecoder, hidden: Floats, advance: Callable[[int], None] | None
) -> None:
    carried = [Carried() for _ in hidden]
    for index, block in enumerate(decoder.blocks):
        weights = Resident(streamed, block)
        for sequence, handed_on in zip(hidden, carried, strict=True):
            run_block(weights, block, decoder, sequence, handed_on)
        check_finite(hidden, f"after layer {index}")
        if advance:
            advance(1)


def head_logits(
    checkpoint: RowSource, decoder: Decoder, hidden: Floats, *, transform: Transform | None = None
) -> Floats:
    """lm_head over what `hidden_states` gives: [m, hidden] to float32 [m, vocab_size]."""
    weights = Streamed(checkpoint, transform)
    return finish_logits(decoder, linear(weights, decoder.lm_head, decoder.lm_head_bias, hidden))


def check_finite(activations: Floats, where: str) -> None:
    """CheckpointError naming `where` when a value is nan or infinite."""
    # One pass without a mask: a sum of squares is finite only if every term is (2**64 is far above any activation).
    if not np.isfinite(np.vdot(activations, activations)) and not np.isfinite(activations).all():
        raise CheckpointError(
            f"activations are not finite {where}",
            hint="the checkpoint is damaged, or its values overflow float32: fetch or export it again",
        )


def _check(decoder: Decoder, tokens: NDArray[np.int64]) -> NDArray[np.int64]:
    if tokens.size == 0 or tokens.min() < 0 or tokens.max() >= decoder.vocab_size:
        raise ValueError(f"ids must be 1 or more tokens in 0..{decoder.vocab_size - 1}")
    return tokens


def _widen(_: Weight, __: int, rows: NDArray[np.generic]) -> Floats:
    return rows.astype(np.float32)


class Streamed:
    """`converters.forward.Weights` that reads a checkpoint's rows through `transform`, a chunk at a time."""

    def __init__(self, checkpoint: RowSource, transform: Transform | None = None) -> None:
        self._checkpoint = checkpoint
        self._transform = transform or _widen

    def vector(self, weight: Weight) -> Floats:
        return self.whole(weight)

    def whole(self, weight: Weight) -> Floats:
        """All of `weight`, float32 of its shape."""
        if not weight.is_matrix:
            return self._transform(weight, 0, self._checkpoint.weight_rows(weight, 0, weight.rows))
        rows = np.empty(weight.shape, np.float32)
        for start, chunk in self.chunks(weight):
            rows[start : start + len(chunk)] = chunk
        return rows

    def chunks(self, weight: Weight) -> Iterator[tuple[int, Floats]]:
        """(first row, rows [n, columns]), all of the weight in order."""
        step = max(1, CHUNK_BYTES // (4 * weight.shape[1]))
        for start in range(0, weight.rows, step):
            stop = min(start + step, weight.rows)
            yield start, self._transform(weight, start, self._checkpoint.weight_rows(weight, start, stop))

    def gather(self, weight: Weight, rows: NDArray[np.int64]) -> Floats:
        """Single rows [len(rows), columns]; each distinct one is read once."""
        distinct, where = np.unique(rows, return_inverse=True)
        found = np.empty((distinct.size, weight.shape[1]), np.float32)
        for i, row in enumerate(distinct.tolist()):
            found[i] = self._transform(weight, row, self._checkpoint.weight_rows(weight, row, row + 1))[0]
        return found[where]

    def project(self, weight: Weight, inputs: Floats) -> Floats:
        if weight.factors is not None:
            return factored(self, weight.factors, inputs)
        outputs = np.empty((inputs.shape[0], weight.rows), np.float32)
        for start, rows in self.chunks(weight):
            np.matmul(inputs, rows.T, out=outputs[:, start : start + rows.shape[0]])
        return outputs


class Resident:
    """`converters.forward.Weights` of one layer, held in float32; `replace` puts quantized values in.

    Experts are too many to be held: `project` reads theirs anew.
    """

    def __init__(self, source: Streamed, layer: Layer | Block) -> None:
        apart = layer.mlp.weights() if isinstance(layer.mlp, Experts) else ()
        held = (weight for weight in layer.weights() if weight not in apart)
        self._source = source
        self._values = {weight.name: source.whole(weight) for weight in held}

    def copy(self) -> Resident:
        """A layer of its own that shares the values until they are replaced."""
        other = Resident.__new__(Resident)
        other._source, other._values = self._source, dict(self._values)
        return other

    def vector(self, weight: Weight) -> Floats:
        return self._values[weight.name]

    def matrix(self, weight: Weight) -> Floats:
        """float32 [rows, columns]."""
        return self._values[weight.name]

    def replace(self, weight: Weight, values: Floats) -> None:
        """Compute with `values`, of the weight's shape, from now on."""
        self._values[weight.name] = values

    def project(self, weight: Weight, inputs: Floats) -> Floats:
        if weight.factors is not None:
            return factored(self, weight.factors, inputs)
        if weight.name not in self._values:
            return self._source.project(weight, inputs)
        outputs: Floats = inputs @ self._values[weight.name].T
        return outputs

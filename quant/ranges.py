"""Ranges of activations: the reference evaluator walked over a text, and every linear layer's inputs and outputs seen.

A few tokens (the first of a sequence, a line's end) have values a hundred or a thousand times all others' where an MLP
writes them into the residual stream ("massive activations", arXiv 2402.17762). Of a down projection the ranges of the
other tokens are noted apart.

In memory: one layer's weights (float32) and the residual stream of every window.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from converters.checkpoint import Checkpoint
from converters.decoder import Decoder, Weight
from converters.forward import SCORE_BYTES, Floats, rope_table, run_layer
from converters.reference import Resident, Streamed, check_finite

Ranges = dict[str, tuple[float, float]]
"""(least, largest) by WEIGHT.in and WEIGHT.out; of down projections also by WEIGHT.in.most and WEIGHT.out.most."""
_ORDINARY = 8
"""Tokens count as such whose largest value is at most so many times the median token's."""


def measure_ranges(
    checkpoint: Checkpoint,
    decoder: Decoder,
    windows: NDArray[np.int64],
    *,
    advance: Callable[[int], None] | None = None,
) -> Ranges:
    """Of all linear layers, over token ids [n, length]. `advance` is told 1 after every layer.

    Raises CheckpointError naming the layer after which a value is not finite.
    """
    streamed = Streamed(checkpoint)
    hidden = streamed.gather(decoder.embedding, windows.reshape(-1)).reshape(*windows.shape, -1)
    cos, sin = rope_table(decoder.rope, windows.shape[1])
    ranges: Ranges = {}
    for index, layer in enumerate(decoder.layers):
        watched = Watched(Resident(streamed, layer))
        for sequence in hidden:
            run_layer(watched, layer, decoder, sequence, cos, sin)
        ranges |= watched.ranges(layer.dense.down)
        check_finite(hidden, f"after layer {index}")
        if advance:
            advance(1)
    return ranges


def needed_bytes(decoder: Decoder, count: int, length: int) -> int:
    """Memory of `measure_ranges` over `count` windows: a layer's weights, the residual streams, and what one window's
    MLP and attention take."""
    weights = max(sum(math.prod(w.shape) for w in layer.weights()) for layer in decoder.layers)
    widest = 3 * decoder.intermediate_size + 6 * decoder.hidden_size
    return 4 * (weights + count * length * decoder.hidden_size + length * widest) + SCORE_BYTES


class Watched:
    """`converters.forward.Weights` that notes what goes in and out."""

    def __init__(self, weights: Resident) -> None:
        self._weights = weights
        self._ends: dict[str, list[Floats]] = {}

    def vector(self, weight: Weight) -> Floats:
        return self._weights.vector(weight)

    def project(self, weight: Weight, inputs: Floats) -> Floats:
        outputs = self._weights.project(weight, inputs)
        for end, values in (("in", inputs), ("out", outputs)):
            ends = np.stack([values.min(axis=1), values.max(axis=1)])
            self._ends.setdefault(f"{weight.name}.{end}", []).append(ends)
        return outputs

    def ranges(self, down: Weight) -> Ranges:
        """Of all that was seen; `down`: the weight of which ordinary tokens are noted apart."""
        found = {}
        for name, seen in self._ends.items():
            ends = np.concatenate(seen, axis=1)
            found[name] = _range(ends)
            if name.startswith(f"{down.name}."):
                largest = np.abs(ends).max(axis=0)
                found[f"{name}.most"] = _range(ends[:, largest <= _ORDINARY * np.median(largest)])
        return found


def _range(ends: Floats) -> tuple[float, float]:
    """`ends`: least and largest of every token, [2, tokens]."""
    return float(ends[0].min()), float(ends[1].max())


def widened(ranges: Ranges, margin: float) -> Ranges:
    """Each end `margin` times as far from zero."""
    return {name: (low * margin, high * margin) for name, (low, high) in ranges.items()}

"""Ranges of activations: the reference evaluator walked over a text, and every linear layer's inputs and outputs seen.

In memory: one layer's weights (float32) and the residual stream of every window.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from converters.checkpoint import Checkpoint
from converters.decoder import Decoder, Weight
from converters.forward import Floats, rope_table, run_layer
from converters.reference import Resident, Streamed, check_finite

Ranges = dict[str, tuple[float, float]]
"""(least, largest) by WEIGHT.in and WEIGHT.out."""


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
        watched = _Watched(Resident(streamed, layer), ranges)
        for sequence in hidden:
            run_layer(watched, layer, decoder, sequence, cos, sin)
        check_finite(hidden, f"after layer {index}")
        if advance:
            advance(1)
    return ranges


class _Watched:
    """`converters.forward.Weights` that notes what goes in and out."""

    def __init__(self, weights: Resident, ranges: Ranges) -> None:
        self._weights, self._ranges = weights, ranges

    def vector(self, weight: Weight) -> Floats:
        return self._weights.vector(weight)

    def project(self, weight: Weight, inputs: Floats) -> Floats:
        outputs = self._weights.project(weight, inputs)
        for end, values in (("in", inputs), ("out", outputs)):
            name = f"{weight.name}.{end}"
            low, high = self._ranges.get(name, (np.inf, -np.inf))
            self._ranges[name] = (min(low, float(values.min())), max(high, float(values.max())))
        return outputs


def widened(ranges: Ranges, margin: float) -> Ranges:
    """Each end `margin` times as far from zero."""
    return {name: (low * margin, high * margin) for name, (low, high) in ranges.items()}

"""The linear layers that an adapter may change, as the checkpoint stores them, and what becomes of them on a device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.decoder import Decoder, Rows, Weight

Floats = NDArray[np.float32]
Pairs = dict[str, tuple[Floats, Floats]]
"""By module, as transformers calls it: a [rank, in] and b [out, rank]; the update is b a, scaled by nothing."""
RoundTrip = Callable[[Weight, int, NDArray[Any]], Floats]
"""(weight, first row, rows in a float type of checkpoints) to what the device computes with, float32."""


@dataclass(frozen=True)
class Linear:
    """One tensor of the checkpoint: q, k and v one above the other, or a single matrix. weights: in row order."""

    module: str
    shape: tuple[int, int]
    weights: tuple[tuple[Weight, Rows], ...]

    @property
    def tensor(self) -> str:
        return f"{self.module}.weight"

    def deployed(self, round_trip: RoundTrip, rows: NDArray[Any]) -> Floats:
        """What the device computes with, of the whole tensor's `rows` [out, in]."""
        parts = [round_trip(weight, 0, rows[part.start : part.stop]) for weight, part in self.weights]
        return np.concatenate(parts)


def linears(decoder: Decoder) -> list[Linear]:
    """Those of the layers of a plain decoder (converters.plain), in forward order: neither embedding nor lm_head."""
    found: dict[str, list[tuple[Weight, Rows]]] = {}
    for layer in decoder.layers:
        for weight in (layer.q, layer.k, layer.v, layer.o, *layer.dense.weights()):
            (part,) = weight.parts
            found.setdefault(part.tensor, []).append((weight, part))
    return [
        Linear(
            tensor.removesuffix(".weight"),
            (max(part.stop for _, part in weights), weights[0][0].shape[1]),
            tuple(sorted(weights, key=lambda each: each[1].start)),
        )
        for tensor, weights in found.items()
    ]

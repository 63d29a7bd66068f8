"""A checkpoint rewritten for a runtime that computes something else than the model, so that it comes out nearly right.

A format that must do so (`converters.rooms.rewriting`) says which Decoder its runtime computes, how each weight is
changed for it, and why that is not exact. The variant is then labelled approximate, its proof compares it with that
Decoder to show that the conversion is right, and with the model itself to show what being approximate costs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from converters.decoder import Decoder, Weight

Change = Callable[[Weight, int, NDArray[Any]], NDArray[Any]]
"""(weight, first row, rows as stored) to the rows that take their place, in any float type."""


class RowSource(Protocol):
    """Where rows of weights come from; a Checkpoint is one. Thread-safe."""

    def weight_rows(self, weight: Weight, start: int, stop: int) -> NDArray[Any]:
        """Rows [start, stop) of `weight`."""


@dataclass(frozen=True)
class Rewriting:
    """decoder: what the runtime computes, with the weights by the same names. change: made for one checkpoint. why:
    one line for a person."""

    decoder: Decoder
    change: Callable[[RowSource], Change]
    why: str


class Rewritten:
    """A RowSource whose rows are changed."""

    def __init__(self, source: RowSource, change: Change) -> None:
        self._source = source
        self._change = change

    def weight_rows(self, weight: Weight, start: int, stop: int) -> NDArray[Any]:
        return self._change(weight, start, self._source.weight_rows(weight, start, stop))

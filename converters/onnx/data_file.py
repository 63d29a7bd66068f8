"""A data file being written: its plan is fixed, every call is a positioned write."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from converters.decoder import Weight
from converters.onnx.layout import Layout
from converters.onnx.rotary import COS, SIN, Tables
from converters.positioned import allocate, write_at
from converters.writer import Encoded


class DataFile:
    """Thread-safe. Whoever made the directory removes what an abandoned one leaves."""

    def __init__(self, layout: Layout, directory: Path) -> None:
        self._layout = layout
        self._stored = {weight.name: stored for stored in layout.stored for weight in stored.weights}
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        self._descriptor = os.open(directory / layout.file, flags, 0o644)
        try:
            allocate(self._descriptor, layout.nbytes)
        except BaseException:
            self.close()
            raise

    def holds(self, weight: Weight) -> bool:
        return weight.name in self._stored

    def pack(self, weight: Weight, rows: Encoded) -> tuple[NDArray[np.generic], ...]:
        """The bytes of `rows` in each tensor of `weight`. ValueError when they do not fit."""
        return self._stored[weight.name].pack(rows)

    def write(self, weight: Weight, start: int, packed: tuple[NDArray[np.generic], ...]) -> None:
        """Rows [start, start + n) of `weight`."""
        stored = self._stored[weight.name]
        first = stored.first_row(weight) + stored.turns * start
        for tensor, array in zip(stored.tensors, packed, strict=True):
            if stored.turns == 1:
                self.write_rows(tensor.name, first, array)
                continue
            for row in range(len(array)):
                self.write_rows(tensor.name, first + stored.turns * row, array[row : row + 1])

    def write_rows(self, tensor: str, first: int, rows: NDArray[np.generic]) -> None:
        """Rows of a tensor, as its bytes are."""
        offset = self._layout.offsets[tensor] + first * self._layout.tensors[tensor].row_bytes
        write_at(self._descriptor, rows, offset)

    def write_rotary_tables(self, tables: Tables) -> None:
        for first, cos, sin in tables:
            self.write_rows(COS, first, cos)
            self.write_rows(SIN, first, sin)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

"""Activations of many windows at one depth, in memory or in a file, for `quant.calibrate`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class Activations(Protocol):
    """float32 [windows, length, width], one window at a time."""

    count: int

    def get(self, window: int) -> Floats:
        """[length, width]; what is done to it is kept only by `put`."""

    def put(self, window: int, values: Floats) -> None: ...

    def close(self) -> None: ...


class InMemory:
    """Held whole."""

    def __init__(self, count: int, length: int, width: int) -> None:
        self.count = count
        self._values = np.empty((count, length, width), np.float32)

    def get(self, window: int) -> Floats:
        found: Floats = self._values[window]
        return found

    def put(self, window: int, values: Floats) -> None:
        self._values[window] = values

    def close(self) -> None:
        self._values = np.empty((0, 0, 0), np.float32)


class Spilled:
    """In a file without a name in `directory`: gone with the process, however it ends."""

    def __init__(self, count: int, length: int, width: int, directory: Path) -> None:
        self.count, self._shape = count, (length, width)
        self._bytes = 4 * length * width
        self._file: BinaryIO = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115  # closed in `close`

    def get(self, window: int) -> Floats:
        values = np.empty(self._shape, np.float32)
        view, at = values.view(np.uint8).data.cast("B"), window * self._bytes
        while view:
            got = os.preadv(self._file.fileno(), [view], at)
            if got == 0:
                raise ValueError(f"window {window} was never put")
            view, at = view[got:], at + got
        return values

    def put(self, window: int, values: Floats) -> None:
        view, at = np.ascontiguousarray(values).view(np.uint8).data.cast("B"), window * self._bytes
        while view:
            wrote = os.pwrite(self._file.fileno(), view, at)
            view, at = view[wrote:], at + wrote

    def close(self) -> None:
        self._file.close()


def windows(activations: Activations) -> Iterator[tuple[int, Floats]]:
    """(index, values) of every window in order."""
    for index in range(activations.count):
        yield index, activations.get(index)

"""Writing by position: a file of planned size, whole buffers at an offset, and each row exactly once."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from converters.decoder import Weight


def allocate(descriptor: int, nbytes: int) -> None:
    """Give the file its final size. OSError when the disk lacks room: now, not when it is half written."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, nbytes)
    else:
        os.ftruncate(descriptor, nbytes)  # macOS cannot reserve


def write_at(descriptor: int, rows: NDArray[np.generic], offset: int) -> None:
    """All bytes of `rows`, in C order, from byte `offset` on."""
    left = np.ascontiguousarray(rows).view(np.uint8).reshape(-1).data
    while left:
        count = os.pwrite(descriptor, left, offset)
        left, offset = left[count:], offset + count


class Coverage:
    """One byte a row: 1.3 MB for a 4B model."""

    def __init__(self, weights: Iterable[Weight]) -> None:
        self._written = {weight.name: np.zeros(weight.rows, np.bool_) for weight in weights}
        self._lock = threading.Lock()

    def claim(self, weight: Weight, start: int, count: int) -> None:
        """Note rows [start, start + count). ValueError when one does not exist or was claimed before."""
        written = self._written[weight.name]
        if count < 1 or start < 0 or start + count > len(written):
            raise ValueError(f"{weight.name} has {len(written)} rows, not [{start}, {start + count})")
        with self._lock:
            if written[start : start + count].any():
                raise ValueError(f"{weight.name}: rows in [{start}, {start + count}) come a second time")
            written[start : start + count] = True

    def check_complete(self) -> None:
        """ValueError that names the first row which was never claimed."""
        for name, written in self._written.items():
            if not written.all():
                raise ValueError(f"{name}: row {int(written.argmin())} was never written")

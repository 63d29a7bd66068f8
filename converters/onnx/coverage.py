"""Book of the rows that were written: each exactly once, from any thread, in any order."""

from __future__ import annotations

import threading
from collections.abc import Iterable

import numpy as np

from converters.decoder import Weight


class Coverage:
    """One bit of truth a row; a whole 4B model has under a million."""

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

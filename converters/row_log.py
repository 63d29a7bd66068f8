"""Which rows of which tensor were read: shows that a pass reads each once, and names what it left out."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType


class RowLog:
    """Counts and remembers row ranges by tensor name. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._ranges: dict[str, list[tuple[int, int]]] = {}

    def add(self, name: str, start: int, stop: int) -> None:
        """Rows [start, stop) of tensor `name` were read."""
        if start < stop:
            with self._lock:
                self._counts[name] += stop - start
                self._ranges[name] = _joined(self._ranges.get(name, []), start, stop)

    def counts(self) -> Mapping[str, int]:
        """Rows read of each tensor so far; a row read twice counts twice. A snapshot."""
        with self._lock:
            return MappingProxyType(dict(self._counts))

    def covers(self, name: str, rows: int) -> bool:
        """Whether each of the rows [0, rows) of tensor `name` was read."""
        with self._lock:
            return rows == 0 or self._ranges.get(name) == [(0, rows)]


def _joined(ranges: list[tuple[int, int]], start: int, stop: int) -> list[tuple[int, int]]:
    """Sorted disjoint `ranges` with [start, stop) added; ranges that touch become one."""
    apart = []
    for first, last in ranges:
        if last < start or first > stop:
            apart.append((first, last))
        else:
            start, stop = min(start, first), max(stop, last)
    return sorted([*apart, (start, stop)])

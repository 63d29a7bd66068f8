"""How fast this machine reads memory, with as many threads as the engine has: the roof over decoding.

A token that is decoded reads every weight once and computes little with it, so memory bandwidth bounds the
tokens per second (the roofline model: Williams, Waterman, Patterson, CACM 52(4), 2009).
"""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

_LEAST_BYTES = 256 << 20
_MOST_BYTES = 1 << 30
_CACHES = 8
"""A buffer of so many last-level caches: what an earlier pass left in them cannot serve a sequential one."""
_PASSES = 3


class Bandwidth:
    """A buffer to read, and threads to read it; both live until `close`."""

    def __init__(self, threads: int) -> None:
        count = min(max(_LEAST_BYTES, _CACHES * last_level_cache()), _MOST_BYTES) // 8
        self.nbytes = count * 8
        # Written, not np.zeros: untouched pages are all the one page of zeros, and lie in the cache.
        self._parts = np.array_split(np.full(count, 1, np.uint64), threads)
        self._pool = ThreadPoolExecutor(threads)

    def measure(self) -> float:
        """Bytes read per second: the best of a few passes, as what disturbs a pass only ever slows it down.

        Bitwise or over 64-bit words is the numpy reduction that computes least; its loop leaves the GIL.
        """
        best = float("inf")
        for _ in range(_PASSES):
            began = time.perf_counter()
            list(self._pool.map(np.bitwise_or.reduce, self._parts))
            best = min(best, time.perf_counter() - began)
        return self.nbytes / best

    def close(self) -> None:
        self._pool.shutdown()
        self._parts = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def last_level_cache() -> int:
    """Bytes of the largest cache that Linux tells of (sysfs-devices-system-cpu); 0 where it tells of none."""
    sizes = [0]
    for file in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        found = re.fullmatch(r"(\d+)([KM])", file.read_text(encoding="ascii").strip())
        if found:
            sizes.append(int(found[1]) << (10 if found[2] == "K" else 20))
    return max(sizes)

"""What engines share that are fed token by token or in chunks, and pick LongRoPE's factors by the length so far.

A cache made with short factors is wrong once the total length passes the original context (measured on a random
model: logits off by 3), and the other way round: everything is then run again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from converters.errors import UnsupportedError
from edge.runtimes.longrope import room

LOGITS_BYTES = 128 << 20
"""Engines keep float32 logits of every position of one append: prompts go in chunks of about this much."""
MAX_CHUNK = 512


class Chunked(ABC):
    """The part of `Runtime` that counts. `switch`: the length up to which the short factors hold, None for one set."""

    def __init__(self, context_length: int, vocab_size: int, switch: int | None, batch: int | None) -> None:
        self.context_length = context_length
        self.vocab_size = vocab_size
        self._switch = switch
        self._chunk = max(16, min(batch or MAX_CHUNK, LOGITS_BYTES // (4 * vocab_size)))
        self._ids: list[int] = []
        self._long = False
        self.between: Callable[[], None] = lambda: None

    @abstractmethod
    def _go_back(self, position: int) -> int:
        """Let the engine's cache hold the first `position` tokens of what it holds, or none where it cannot; returns
        how many it holds then."""

    @abstractmethod
    def _feed(self, ids: Sequence[int]) -> None:
        """Run `ids` after what the cache holds. Raises MachineError when the engine cannot."""

    @abstractmethod
    def _last(self) -> NDArray[np.float32]:
        """Logits of the last token fed, float32 [vocab_size]."""

    @abstractmethod
    def _all(self) -> NDArray[np.float32]:
        """Logits of every token of the last `_feed`, float32 [tokens, vocab_size]."""

    @property
    def position(self) -> int:
        return len(self._ids)

    @property
    def room(self) -> int:
        return room(self.position, self.context_length, self._switch)

    def append(self, ids: Sequence[int]) -> NDArray[np.float32]:
        for _ in self._run(ids):
            pass
        return self._last()

    def append_all(self, ids: Sequence[int]) -> NDArray[np.float32]:
        return self._every(ids, self.position)

    def teacher_forced(self, ids: Sequence[int], *, first: int = 0) -> NDArray[np.float32]:
        self.rewind(0)
        return self._every(ids, first)

    def rewind(self, position: int) -> None:
        if not 0 <= position <= len(self._ids):
            raise ValueError(f"rewind to {position} of {len(self._ids)}")
        del self._ids[position:]

    def _every(self, new: Sequence[int], first: int) -> NDArray[np.float32]:
        """Feed `new`; logits of every position from `first` on."""
        logits = np.empty((self.position + len(new) - first, self.vocab_size), np.float32)
        for start, stop in self._run(new):
            begin = max(start, first)
            if begin < stop:
                logits[begin - first : stop - first] = self._all()[begin - start :]
        return logits

    def _run(self, new: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Feed `new` in chunks; yields the [start, stop) positions of each chunk after it ran."""
        total = self._total(new)
        long = self._switch is not None and total > self._switch
        ids = [*self._ids, *new]
        start = len(self._ids)
        if long != self._long or start == 0:
            start = 0
            self._long = long
        self._ids = []  # what an interrupt leaves: nothing that counts as cached
        start = self._go_back(start)
        while start < total:
            # The graph picks its factors by the length so far: the first chunk must be past the switch.
            least = self._switch + 1 if long and start == 0 and self._switch is not None else self._chunk
            stop = min(total, start + max(self._chunk, least))
            self._feed(ids[start:stop])
            self._ids = ids[:stop]
            self.between()
            yield start, stop
            start = stop

    def _total(self, new: Sequence[int]) -> int:
        """Tokens in the cache once `new` are in. UnsupportedError when they are too many."""
        total = len(self._ids) + len(new)
        if not new or total > self.context_length:
            raise UnsupportedError(
                f"{len(self._ids)} + {len(new)} tokens do not fit a context of {self.context_length}",
                hint="--context N with a larger N, or a shorter prompt",
            )
        return total

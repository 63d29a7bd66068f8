"""The one thread that an engine runs in: requests wait in line and are answered in the order in which they came."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from edge.serving.errors import ApiError

T = TypeVar("T")
_LONGEST_WAIT = 60
"""Seconds; what a client is told at most to wait."""


class _End:
    """After the last event."""


class GivenUpError(Exception):
    """Raised in the engine's thread when nobody waits for the answer any more."""


@dataclass(eq=False)
class _Job(Generic[T]):
    work: Callable[[Callable[[], None]], Generator[T]]
    events: asyncio.Queue[T | Exception | _End]
    loop: asyncio.AbstractEventLoop
    cancelled: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        if self.cancelled.is_set():
            raise GivenUpError

    def tell(self, event: T | Exception | _End) -> None:
        with suppress(RuntimeError):  # the loop is closed: so is the server
            self.loop.call_soon_threadsafe(self.events.put_nowait, event)


class Worker(Generic[T]):
    """`limit`: how many may wait; `close` ends the thread."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: deque[_Job[T]] = deque()
        self._running: _Job[T] | None = None
        self._changed = threading.Condition()
        self._stopping = self._closed = False
        self._seconds = 1.0
        self._thread = threading.Thread(target=self._loop, name="engine")
        self._thread.start()

    async def run(self, work: Callable[[Callable[[], None]], Generator[T]]) -> AsyncGenerator[T]:
        """What `work` yields in the engine's thread, as it comes.

        Closing this iterator ends `work` at its next yield, or earlier: `work` is given a function that raises then.

        ApiError: 429 when too many wait, 503 when the server stops; what `work` raises comes through.
        """
        job: _Job[T] = _Job(work, asyncio.Queue(), asyncio.get_running_loop())
        self._add(job)
        try:
            while not isinstance(event := await job.events.get(), _End):
                if isinstance(event, Exception):
                    raise event
                yield event
        finally:
            job.cancelled.set()
            with self._changed:
                if job in self._waiting:
                    self._waiting.remove(job)

    @property
    def load(self) -> tuple[int, int]:
        """How many are being answered (0 or 1), and how many wait."""
        with self._changed:
            return int(self._running is not None), len(self._waiting)

    @property
    def stopping(self) -> bool:
        return self._stopping

    def drain(self) -> None:
        """Take nothing new; what is there goes on."""
        self._stopping = True

    def cut(self) -> int:
        """End what is there, with an error each; how many there were."""
        with self._changed:
            jobs = [*([self._running] if self._running else []), *self._waiting]
            self._waiting.clear()
            for job in jobs:
                job.cancelled.set()
                job.tell(ApiError(503, "the server is stopping"))
            return len(jobs)

    def close(self) -> None:
        self.drain()
        with self._changed:
            self._closed = True
            self._waiting.clear()
            if self._running:
                self._running.cancelled.set()
            self._changed.notify()
        self._thread.join()

    def _add(self, job: _Job[T]) -> None:
        with self._changed:
            if self._stopping:
                raise ApiError(503, "the server is stopping", retry_after=_LONGEST_WAIT)
            if len(self._waiting) >= self._limit:
                seconds = math.ceil(self._seconds * (len(self._waiting) + 1))
                raise ApiError(
                    429,
                    f"{len(self._waiting)} requests wait already",
                    code="queue_full",
                    retry_after=min(max(seconds, 1), _LONGEST_WAIT),
                )
            self._waiting.append(job)
            self._changed.notify()

    def _loop(self) -> None:
        while True:
            with self._changed:
                self._running = None
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                job = self._running = self._waiting.popleft()
            began = time.monotonic()
            self._answer(job)
            self._seconds += (time.monotonic() - began - self._seconds) / 4

    def _answer(self, job: _Job[T]) -> None:
        try:
            with closing(job.work(job.check)) as events:
                for event in events:
                    job.check()
                    job.tell(event)
            job.tell(_End())
        except GivenUpError:
            pass
        except Exception as error:  # the border of the thread: who asked is told, and the next one is served
            job.tell(error)
        except BaseException as error:  # a panic in Rust code is no Exception (pyo3)
            job.tell(RuntimeError(f"{type(error).__name__}: {error}"))

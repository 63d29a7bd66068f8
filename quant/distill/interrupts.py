"""Ctrl-C that waits for the end of a step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def deferred_interrupt(*, alone: bool) -> Iterator[Callable[[], bool]]:
    """A first Ctrl-C is remembered, so that no weight is left half updated; outside the main thread nothing changes.

    A launcher hands on the Ctrl-C that the terminal has given to all processes already, and kills those that do not
    end (torchrun: after 30 s), so a process that is not alone only remembers.
    """
    seen = False

    def remember(number: int, frame: object) -> None:
        nonlocal seen
        seen = True
        if alone:
            signal.signal(signal.SIGINT, before)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, remember)
    try:
        yield lambda: seen
    finally:
        signal.signal(signal.SIGINT, before)

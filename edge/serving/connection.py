"""A client's connection, which does not stay open for one that never asks."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

PATIENCE = 30
"""Seconds that a connection may be open without a request under way: idle, with a head that comes a byte at a time, or
with the rest of a body that was refused. Longer than clients keep idle ones (httpx: 5), or one that sends just when it
is closed meets an error. uvicorn's own limit for idle connections ends with the first byte."""


class Connection(H11Protocol):
    """By h11, whatever else is installed: it limits the head of a request (to 16 KiB beyond what comes in one read)."""

    _end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unwatch()

    def handle_events(self) -> None:
        super().handle_events()
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def _watch(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._unwatch()
        elif self._end is None and not self.transport.is_closing():
            self._end = self.loop.call_later(PATIENCE, self.transport.abort)

    def _unwatch(self) -> None:
        if self._end is not None:
            self._end.cancel()
            self._end = None

"""What all answers of the engine have in common: they wait in line, can fail, and leave a line in the log."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from edge.serving.errors import ApiError, bug
from edge.serving.events import Event
from edge.serving.sse import send_event
from edge.serving.worker import Worker


@dataclass
class Response(ABC):
    """An ASGI response that the engine works for; a client that goes away ends the work. `log` is told how it ended.

    streaming: whether a part of it is sent already.
    """

    worker: Worker[Event]
    log: Callable[[str], None]
    model: str
    streaming: bool = field(default=False, init=False)
    counts: str = field(default="", init=False)
    end: str = field(default="the client went away", init=False)

    @abstractmethod
    def work(self, check: Callable[[], None]) -> Generator[Event]:
        """What the engine's thread does."""

    @abstractmethod
    async def follow(self, events: AsyncGenerator[Event], scope: Scope, receive: Receive, send: Send) -> None:
        """Tell the client."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.monotonic()
        try:
            await _while_there(receive, self._answer(scope, receive, send))
        finally:
            seconds = time.monotonic() - began
            self.log(f"{scope['path']} {self.model}: {self.counts}{self.end}, {seconds:.1f} s")

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with aclosing(self.worker.run(self.work)) as events:
                await self.follow(events, scope, receive, send)
        except Exception as error:
            told = error if isinstance(error, ApiError) else bug()
            cause = told.message if told is error else f"{type(error).__name__}: {error}"
            self.end = f"{told.status} {cause}"
            if not self.streaming:
                await JSONResponse(told.to_data(), told.status, told.headers)(scope, receive, send)
                return
            await send_event(send, told.to_data())
            await send({"type": "http.response.body", "body": b""})


async def _while_there(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Run `work` until it ends or the client is gone; it is then cancelled, and has ended when this returns."""
    tasks = [asyncio.ensure_future(work), asyncio.ensure_future(_gone(receive))]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if tasks[0].done():
            tasks[0].result()
    finally:
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

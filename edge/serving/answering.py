"""One answer on its way to a client, whole or as server-sent events; a client that goes away ends it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from edge.serving.errors import ApiError
from edge.serving.logprobs import Scored
from edge.serving.model import Event, Finished, Piece, Served, Started
from edge.serving.replies import Reply
from edge.serving.requests import Question
from edge.serving.worker import Worker

_EVENTS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]


@dataclass
class Answering:
    """An ASGI response. `log` is told, in one line, what was answered."""

    worker: Worker[Event]
    served: Served
    question: Question
    log: Callable[[str], None]
    _sent: bool = False
    _end: str = "the client went away"
    _counts: str = ""
    _scored: list[Scored] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await _while_there(receive, self._answer(scope, receive, send))
        finally:
            self.log(f"{scope['path']} {self.question.model}: {self._counts}{self._end}")

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with aclosing(self.worker.run(partial(self.served.answer, self.question))) as events:
                await self._follow(events, scope, receive, send)
        except Exception as error:
            told = (
                error
                if isinstance(error, ApiError)
                else ApiError(500, "the server met a bug; its log says which")
            )
            self._end = (
                f"{told.status} {told.message}" if told is error else f"500 {type(error).__name__}: {error}"
            )
            if not self._sent:
                await JSONResponse(told.to_data(), told.status, told.headers)(scope, receive, send)
                return
            await _send(send, told.to_data())
            await send({"type": "http.response.body", "body": b""})

    async def _follow(self, events: Any, scope: Scope, receive: Receive, send: Send) -> None:
        reply: Reply | None = None
        async for event in events:
            if isinstance(event, Started):
                reply = Reply(self.question, event)
                self._counts = f"{event.prompt_tokens} tokens read ({event.cached_tokens} cached), "
                if self.question.stream:
                    await self._begin(send, reply)
            elif reply is None:
                raise TypeError("an answer before its start")
            elif isinstance(event, Piece):
                await self._piece(send, reply, event)
            else:
                self._end = f"{event.answer_tokens} written in {event.seconds:.1f} s, {event.stop}"
                if self.question.stream:
                    await self._finish(send, reply, event)
                else:
                    await JSONResponse(reply.whole(event))(scope, receive, send)

    async def _begin(self, send: Send, reply: Reply) -> None:
        self._sent = True
        await send({"type": "http.response.start", "status": 200, "headers": _EVENTS})
        if first := reply.first():
            await _send(send, first)

    async def _piece(self, send: Send, reply: Reply, piece: Piece) -> None:
        held = reply.text if reply.held else ""
        reply.text += piece.text
        if piece.scored:
            reply.scored.append(piece.scored)
            self._scored.append(piece.scored)
        if self.question.stream and piece.text and not reply.held:
            await _send(send, reply.piece(held + piece.text, self._scored))
            self._scored.clear()

    async def _finish(self, send: Send, reply: Reply, finished: Finished) -> None:
        if self._scored and not reply.held:
            await _send(send, reply.piece("", self._scored))
        for data in reply.last(finished):
            await _send(send, data)
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


async def _send(send: Send, data: Any) -> None:
    body = f"data: {json.dumps(data, ensure_ascii=False)}\n\n".encode()
    await send({"type": "http.response.body", "body": body, "more_body": True})


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

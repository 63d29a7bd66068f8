"""The answers to a chat or a completion on their way to a client, whole or as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import dataclass
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from edge.serving.events import Event, Finished, Piece, Started
from edge.serving.model import Served
from edge.serving.replies import Reply
from edge.serving.requests import Question
from edge.serving.response import Response
from edge.serving.sse import begin_events, end_events, send_event


@dataclass
class Answering(Response):
    """See `Response`."""

    served: Served
    question: Question

    def work(self, check: Callable[[], None]) -> Generator[Event]:
        return self.served.answer(self.question, check)

    async def follow(self, events: AsyncGenerator[Event], scope: Scope, receive: Receive, send: Send) -> None:
        reply: Reply | None = None
        async for event in events:
            if isinstance(event, Started):
                reply = Reply(self.question, event)
                self.counts = f"{event.prompt_tokens} tokens read ({event.cached_tokens} cached), "
                if self.question.stream:
                    self.streaming = True
                    await begin_events(send)
                    await self._tell(send, reply.first())
            elif reply is None or not isinstance(event, Piece | Finished):
                raise TypeError(f"{type(event).__name__} of an answer that has not begun")
            else:
                await self._tell(send, reply.take(event))
                if reply.done:
                    self.end = f"{reply.answer_tokens} written, {' '.join(reply.stops)}"
                    if not self.question.stream:
                        await JSONResponse(reply.whole())(scope, receive, send)
        if self.streaming:
            await end_events(send)

    async def _tell(self, send: Send, pieces: list[dict[str, Any]]) -> None:
        if self.question.stream:
            for data in pieces:
                await send_event(send, data)

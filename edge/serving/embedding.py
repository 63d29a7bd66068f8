"""The vectors of a request on their way to a client."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import dataclass

from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from edge.serving.encoder import ServedEncoder
from edge.serving.events import Embedded, Event
from edge.serving.response import Response
from edge.serving.texts import Texts, tell_vectors


@dataclass
class Embedding(Response):
    """See `Response`."""

    served: ServedEncoder
    asked: Texts

    def work(self, check: Callable[[], None]) -> Generator[Event]:
        return self.served.embed(self.asked, check)

    async def follow(self, events: AsyncGenerator[Event], scope: Scope, receive: Receive, send: Send) -> None:
        found = [event async for event in events if isinstance(event, Embedded)]
        self.end = f"{len(found)} vectors of {sum(each.tokens for each in found)} tokens"
        await JSONResponse(tell_vectors(self.asked, found))(scope, receive, send)

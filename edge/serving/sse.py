"""Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html), as OpenAI sends them."""

from __future__ import annotations

import json
from typing import Any

from starlette.types import Send

_HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]


async def begin_events(send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})


async def send_event(send: Send, data: Any) -> None:
    body = f"data: {json.dumps(data, ensure_ascii=False)}\n\n".encode()
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def end_events(send: Send) -> None:
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})

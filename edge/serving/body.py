"""The JSON of a request, from a client that may send too much, too slowly, or something else."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from starlette.requests import ClientDisconnect, Request

from edge.serving.errors import ApiError

MAX_BODY = 32 << 20
"""Bytes: some photos as base64; any text that fits a context is shorter."""
_ALL_BODIES = 8 * MAX_BODY
"""Bytes of the requests that are being received at one time."""
_MAX_PARTS = 1 << 20
"""Commas and brackets: each value takes some sixty bytes of memory, whatever it took to write it."""
_PATIENCE = 60
"""Seconds that a client may take to send its request."""


class Bodies:
    """Reads them; knows how many bytes of all of them are in memory."""

    def __init__(self) -> None:
        self._bytes = 0

    async def read(self, request: Request) -> Any:
        """Raises ApiError. A page of another site can send no application/json without being asked first (CORS)."""
        kind = request.headers.get("content-type", "none")
        if kind.partition(";")[0].strip().lower() != "application/json":
            raise ApiError(415, f"the content type is {kind}, not application/json")
        if int(request.headers.get("content-length", "0")) > MAX_BODY:
            raise _too_large()
        data = bytearray()
        try:
            async with asyncio.timeout(_PATIENCE):
                async for piece in request.stream():
                    self._bytes += len(piece)
                    data += piece
                    if len(data) > MAX_BODY:
                        raise _too_large()
                    if self._bytes > _ALL_BODIES:
                        raise ApiError(
                            503, "too many large requests arrive at once", code="overloaded", retry_after=1
                        )
        except TimeoutError:
            raise ApiError(408, f"the request did not arrive within {_PATIENCE} s") from None
        except ClientDisconnect:
            raise ApiError(400, "the client went away") from None
        finally:
            self._bytes -= len(data)
        return _parse(data)


def _too_large() -> ApiError:
    return ApiError(413, f"the request is larger than {MAX_BODY >> 20} MiB", code="request_too_large")


def _parse(data: bytearray) -> Any:
    if sum(map(data.count, (b",", b"[", b"{"))) > _MAX_PARTS:
        raise ApiError(413, f"the request has more than {_MAX_PARTS} values", code="request_too_large")
    try:
        found = json.loads(data, parse_constant=_refuse)
        if b"\\u" in data:
            json.dumps(found, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError):
        raise ApiError(400, "the body is no JSON") from None
    return found


def _refuse(word: str) -> Any:
    raise ValueError(word)

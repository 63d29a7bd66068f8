"""Who may ask: a token where there is one, and else only programs of this computer, not pages of other sites."""

from __future__ import annotations

import hmac

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from edge.serving.errors import ApiError

_LOCAL = {"localhost", "127.0.0.1", "::1"}


class Gate:
    """ASGI middleware. Without a token the Host must be a name of this computer: a foreign name that resolves to
    loopback (DNS rebinding) would let any web page ask."""

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = self._refused(Headers(scope=scope)) if scope["type"] == "http" else None
        if error:
            response = JSONResponse(error.to_data(), error.status, {"WWW-Authenticate": "Bearer"})
            await response(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _refused(self, headers: Headers) -> ApiError | None:
        if self._token is None:
            host = headers.get("host", "")
            name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
            if name.lower() not in _LOCAL:
                return ApiError(
                    403, f"this server is not called '{name}'; it takes requests of this computer only"
                )
            return None
        given = headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(), self._token.encode()):
            return ApiError(401, "the API key is missing or wrong", code="invalid_api_key")
        return None

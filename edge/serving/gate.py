"""Who may ask: a token where there is one, and else only programs of this computer, not pages of other sites."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from ipaddress import ip_address

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from edge.serving.errors import ApiError

HEALTH = "/health"
"""What watches over a server asks without its token."""


class Gate:
    """ASGI middleware. Without a token the Host must be a name of this computer: a foreign name that resolves to
    loopback (DNS rebinding) would let any web page ask."""

    def __init__(self, app: ASGIApp, token: str | None, log: Callable[[str], None]) -> None:
        self._app = app
        self._log = log
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = self._denial(scope) if scope["type"] == "http" else None
        if error:
            self._log(f"{scope['path']}: {error.status} {error.message}")
            response = JSONResponse(error.to_data(), error.status, error.headers)
            await response(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _denial(self, scope: Scope) -> ApiError | None:
        headers = Headers(scope=scope)
        if self._token is None:
            host = headers.get("host", "")
            name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
            if _is_local(name):
                return None
            return ApiError(
                403, f"this server is not called '{name}'; it takes requests of this computer only"
            )
        if scope["path"] == HEALTH:
            return None
        scheme, _, given = headers.get("authorization", "").partition(" ")
        # Headers are decoded as Latin-1, whatever bytes they hold.
        same = hmac.compare_digest(given.strip().encode("latin-1"), self._token.encode())
        if scheme.lower() == "bearer" and same:
            return None
        error = ApiError(401, "the API key is missing or wrong", code="invalid_api_key")
        error.headers["WWW-Authenticate"] = "Bearer"
        return error


def _is_local(name: str) -> bool:
    try:
        return name.lower() == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False

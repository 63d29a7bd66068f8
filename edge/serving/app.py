"""The web application: the paths of OpenAI's interface that this server has."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from edge.serving.answering import Answering
from edge.serving.errors import ApiError
from edge.serving.gate import Gate
from edge.serving.model import Event, Served
from edge.serving.requests import Question, read_chat, read_completion
from edge.serving.worker import Worker

MAX_BODY = 32 << 20
"""Bytes: some photos as base64; any text that fits a context is shorter."""
_PATIENCE = 60
"""Seconds that a client may take to send its request."""


def make_app(
    served: Served,
    worker: Worker[Event],
    *,
    token: str | None,
    origins: Sequence[str],
    log: Callable[[str], None],
) -> Starlette:
    """origins: of web pages that may ask (CORS); none by default."""

    async def answer(request: Request, read: Callable[[object], Question]) -> Any:
        question = read(await _body(request))
        served.check_name(question.model)
        return Answering(worker, served, question, log)

    async def chat(request: Request) -> Any:
        return await answer(request, read_chat)

    async def completions(request: Request) -> Any:
        return await answer(request, read_completion)

    async def embeddings(request: Request) -> Response:
        raise ApiError(
            400, f"{served.name} writes text; it gives no embeddings", param="model", code="unsupported_model"
        )

    async def models(request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [_model(served, name) for name in served.names]})

    async def model(request: Request) -> Response:
        name = request.path_params["name"]
        served.check_name(name)
        return JSONResponse(_model(served, name))

    cors = Middleware(CORSMiddleware, allow_origins=list(origins), allow_methods=["*"], allow_headers=["*"])
    return Starlette(
        routes=[
            Route("/v1/chat/completions", chat, methods=["POST"]),
            Route("/v1/completions", completions, methods=["POST"]),
            Route("/v1/embeddings", embeddings, methods=["POST"]),
            Route("/v1/models", models),
            Route("/v1/models/{name:path}", model),
        ],
        middleware=[*([cors] if origins else []), Middleware(Gate, token=token)],
        exception_handlers={ApiError: _api_error, HTTPException: _http_error},
    )


def _model(served: Served, name: str) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": served.created,
        "owned_by": "edge",
        "context_length": served.runtime.context_length,
    }


async def _body(request: Request) -> Any:
    """The JSON of a request. A page of another site can send no application/json without being asked first (CORS)."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise ApiError(415, "the content type is not application/json")
    data = bytearray()
    try:
        async with asyncio.timeout(_PATIENCE):
            async for piece in request.stream():
                data += piece
                if len(data) > MAX_BODY:
                    raise ApiError(
                        413, f"the request is larger than {MAX_BODY >> 20} MiB", code="request_too_large"
                    )
    except TimeoutError:
        raise ApiError(408, f"the request did not arrive within {_PATIENCE} s") from None
    except ClientDisconnect:
        raise ApiError(400, "the client went away") from None
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise ApiError(400, "the body is no JSON") from None


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return JSONResponse(error.to_data(), error.status, error.headers)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    told = ApiError(error.status_code, f"{request.method} {request.url.path}: {error.detail}")
    return JSONResponse(told.to_data(), error.status_code, error.headers)

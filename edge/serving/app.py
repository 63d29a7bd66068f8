"""The web application: the paths of OpenAI's interface that this server has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from edge.serving.answering import Answering
from edge.serving.body import Bodies
from edge.serving.embedding import Embedding
from edge.serving.encoder import ServedEncoder
from edge.serving.errors import ApiError, bug, model_not_found
from edge.serving.events import Event
from edge.serving.gate import HEALTH, Gate
from edge.serving.model import Served
from edge.serving.requests import Question, read_chat, read_completion
from edge.serving.texts import read_texts
from edge.serving.worker import Worker

T = TypeVar("T")


def make_app(
    served: Served | ServedEncoder,
    worker: Worker[Event],
    *,
    token: str | None,
    origins: Sequence[str],
    log: Callable[[str], None],
) -> Starlette:
    """origins: of web pages that may ask (CORS); none by default."""
    bodies = Bodies()

    def check_name(name: str) -> None:
        if name not in served.names:
            raise model_not_found(name, served.names)

    async def answer(request: Request, read: Callable[[object], Question]) -> Any:
        if isinstance(served, ServedEncoder):
            raise _unsupported(f"{served.names[0]} is an encoder, which writes no text; POST /v1/embeddings")
        question = _read(read, await bodies.read(request))
        check_name(question.model)
        return Answering(worker, log, question.model, served, question)

    async def chat(request: Request) -> Any:
        return await answer(request, read_chat)

    async def completions(request: Request) -> Any:
        return await answer(request, read_completion)

    async def embeddings(request: Request) -> Any:
        if isinstance(served, Served):
            raise _unsupported(f"{served.names[0]} writes text; it gives no embeddings")
        asked = _read(read_texts, await bodies.read(request))
        check_name(asked.model)
        return Embedding(worker, log, asked.model, served, asked)

    async def models(request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [_model(served, name) for name in served.names]})

    async def model(request: Request) -> Response:
        name = request.path_params["name"]
        check_name(name)
        return JSONResponse(_model(served, name))

    async def health(request: Request) -> Response:
        running, waiting = worker.load
        status = "stopping" if worker.stopping else "ok"
        told = {"status": status, "running": running, "waiting": waiting}
        return JSONResponse(told, 503 if worker.stopping else 200)

    async def refuse(request: Request, error: Exception) -> Response:
        """Starlette raises what is a bug again afterwards, for the log."""
        if isinstance(error, HTTPException):
            known = " ".join([*served.paths, "/v1/models"])
            message = f"{request.method} {request.url.path}: {error.detail}; there is {known}"
            told = ApiError(error.status_code, message)
            told.headers |= error.headers or {}
        else:
            told = error if isinstance(error, ApiError) else bug()
        log(f"{request.url.path}: {told.status} {told.message}")
        return JSONResponse(told.to_data(), told.status, told.headers)

    # private network: Chrome asks whether a page of the internet may reach this computer.
    cors = Middleware(
        CORSMiddleware,
        allow_origins=list(origins),
        allow_methods=["*"],
        allow_headers=["*"],
        allow_private_network=True,
    )
    app = Starlette(
        routes=[
            Route("/v1/chat/completions", chat, methods=["POST"]),
            Route("/v1/completions", completions, methods=["POST"]),
            Route("/v1/embeddings", embeddings, methods=["POST"]),
            Route("/v1/models", models),
            Route("/v1/models/{name:path}", model),
            Route(HEALTH, health),
        ],
        middleware=[*([cors] if origins else []), Middleware(Gate, token=token, log=log)],
        exception_handlers={ApiError: refuse, HTTPException: refuse, Exception: refuse},
    )
    app.router.redirect_slashes = False  # a redirect would name the host that the client made up
    return app


def _read(read: Callable[[object], T], data: object) -> T:
    try:
        return read(data)
    except RecursionError:
        raise ApiError(400, "the body is nested too deeply") from None


def _unsupported(message: str) -> ApiError:
    return ApiError(400, message, param="model", code="unsupported_model")


def _model(served: Served | ServedEncoder, name: str) -> dict[str, Any]:
    told = {
        "id": name,
        "object": "model",
        "created": served.created,
        "owned_by": "edge",
        "context_length": served.context_length,
    }
    return told | ({"dimensions": served.dimensions} if served.dimensions else {})

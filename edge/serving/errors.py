"""Errors as OpenAI's clients know them: an HTTP status and {"error": {message, type, param, code}}."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from converters.errors import EdgeError, MachineError

_CHARACTERS = 256
"""Of a text for each token of the context; the longest tokens of common vocabularies are runs of 128 blanks."""


class ApiError(Exception):
    """param: the field of the request that is wrong. retry_after: seconds."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.headers = {} if retry_after is None else {"Retry-After": str(retry_after)}

    def to_data(self) -> dict[str, Any]:
        kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
        kind = kinds.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def bug() -> ApiError:
    """Nothing of the server's inside is told to clients."""
    return ApiError(500, "the server met a bug; its log says which")


def model_not_found(name: str, names: Sequence[str]) -> ApiError:
    return ApiError(
        404,
        f"the model '{name}' does not exist; there is {', '.join(names)}",
        param="model",
        code="model_not_found",
    )


def context_exceeded(context: int, but: str, param: str) -> ApiError:
    """In OpenAI's words, which clients look for."""
    return ApiError(
        400,
        f"This model's maximum context length is {context} tokens. However, {but}.",
        param=param,
        code="context_length_exceeded",
    )


def check_characters(count: int, context: int, what: str, param: str) -> None:
    """Refuse a text that cannot fit before it is cut into tokens, which nothing interrupts (a second for each MB)."""
    if count > _CHARACTERS * context:
        raise context_exceeded(context, f"{what} has {count} characters", param)


def as_api_error(error: EdgeError) -> ApiError:
    """What the engine or the template refuses is the request's fault, except where the machine gave up."""
    return ApiError(500 if isinstance(error, MachineError) else 400, error.cause)

"""Requests that are none, or come from a foreign page: each is refused, and the next one is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request

from edge.serving import body
from edge.serving.body import MAX_BODY, Bodies
from edge.serving.errors import ApiError
from tests.edge import own_loop
from tests.edge.serving_process import ServerProcess, serving_tiny, status

Tiny = Callable[..., Path]
CHAT = "/chat/completions"
HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def server(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving_tiny(tiny("phi4-mini"), tmp_path_factory.mktemp("model")) as process:
        yield process


@pytest.fixture(autouse=True)
def _still_serves(server: ServerProcess) -> Iterator[None]:
    yield
    answer = server.post(CHAT, {"model": "m", "messages": HELLO, "max_tokens": 2, "temperature": 0})
    assert answer.json()["usage"]["completion_tokens"] == 2
    assert server.health()[1] == {"status": "ok", "running": 0, "waiting": 0}


@pytest.mark.parametrize(
    ("body", "expected", "says"),
    [
        (b"", 400, "no JSON"),
        (b"{", 400, "no JSON"),
        (b"[" * 100_000, 400, "no JSON"),
        (b"\xff", 400, "no JSON"),
        (b"[]", 400, "no JSON object"),
        (b'{"temperature": NaN}', 400, "no JSON"),
        (b'{"model": "\\ud800"}', 400, "no JSON"),
        (b'{"model": "m", "messages": [{"role": "user", "content": "\\ud83d"}]}', 400, "no JSON"),
        (b'{"max_tokens": ' + b"9" * 5000 + b"}", 400, "no JSON"),
        (b"[" + b"0," * (1 << 20) + b"0]", 413, "more than 1048576 values"),
        (b" " * (MAX_BODY + 1), 413, "larger than 32 MiB"),
    ],
    ids=["empty", "cut", "deep", "utf8", "list", "nan", "surrogate", "half", "digits", "values", "large"],
)
def test_bodies_that_are_no_requests(server: ServerProcess, body: bytes, expected: int, says: str) -> None:
    answer = server.post(CHAT, body)
    assert (answer.status_code, answer.json()["error"]["type"]) == (expected, "invalid_request_error")
    assert says in answer.json()["error"]["message"]


def test_depth_that_json_allows_breaks_nothing(server: ServerProcess) -> None:
    schema: Any = {"type": "string"}
    for _ in range(450):
        schema = {"type": "object", "properties": {"a": schema}}
    asked = {"model": "m", "messages": HELLO}
    for more in (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}]},
    ):
        answer = server.post(CHAT, asked | more)
        assert answer.status_code == 400, answer.text
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "[" * 900 + "]" * 900}}
    said = [*HELLO, {"role": "assistant", "tool_calls": [call]}, *HELLO]
    assert server.post(CHAT, asked | {"messages": said, "max_tokens": 2}).status_code in (200, 400)


def test_a_text_that_cannot_fit_is_not_even_cut_into_tokens(server: ServerProcess) -> None:
    for path, asked in (
        (CHAT, {"messages": [{"role": "user", "content": "a" * 300_000}]}),
        ("/completions", {"prompt": "a" * 300_000}),
    ):
        error = server.post(path, {"model": "m"} | asked).json()["error"]
        assert error["code"] == "context_length_exceeded"
        assert "300000 characters" in error["message"]


def test_methods_and_paths_that_are_not_there(server: ServerProcess) -> None:
    answer = server.tell(b"HEAD /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert status(answer) == 200
    assert answer.endswith(b"\r\n\r\n")
    # No page of another site is told that it may ask.
    preflight = (
        b"Origin: https://evil.example\r\nAccess-Control-Request-Method: POST\r\nConnection: close\r\n\r\n"
    )
    answer = server.tell(b"OPTIONS /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n" + preflight)
    assert status(answer) == 405
    assert b"access-control" not in answer.lower()
    assert "access-control-allow-origin" not in server.get("/models", origin="https://evil.example").headers
    assert server.post(CHAT, b"{}", **{"content-type": "text/plain"}).status_code == 415
    # No redirect to a host that the client made up, and a path that says what there is.
    answer = server.post(CHAT + "/", {})
    assert answer.status_code == 404
    assert "there is /v1/chat/completions /v1/completions /v1/models" in answer.json()["error"]["message"]


def test_only_names_of_this_computer_are_answered(server: ServerProcess) -> None:
    """Else a page whose name is made to lead here (DNS rebinding) could ask and read."""
    for name in ("localhost", "LOCALHOST:1", "127.0.0.1", "127.9.9.9:80", "[::1]:8080"):
        assert server.get("/models", host=name).status_code == 200, name
    for name in (
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "192.168.0.1",
        "[::2]",
        "",
        "[",
    ):
        assert server.get("/models", host=name).status_code == 403, name
    assert status(server.tell(b"GET /v1/models HTTP/1.0\r\n\r\n")) == 403
    assert "/v1/models: 403 this server is not called 'evil.example'" in server.log


def read_body(bodies: Bodies, *pieces: bytes | float) -> Any:
    """What `bodies` makes of a request that comes in these pieces; a number is a pause in seconds."""
    headers = [(b"content-type", b"application/json")]
    coming = iter(pieces)

    async def receive() -> Any:
        piece = next(coming, None)
        if isinstance(piece, float):
            await asyncio.sleep(piece)
            return await receive()
        return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}

    return own_loop.run(bodies.read(Request({"type": "http", "headers": headers}, receive)))


def test_what_comes_too_slowly_or_too_much_at_once_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    bodies = Bodies()
    assert read_body(bodies, b'{"a": ', b"1}") == {"a": 1}
    monkeypatch.setattr(body, "_PATIENCE", 0.05)
    monkeypatch.setattr(body, "_ALL_BODIES", 100)
    for pieces, status_, says in (
        ((b"{", 5.0, b"}"), 408, "did not arrive within"),
        ((b" " * 90, b" " * 20), 503, "too many large requests"),
    ):
        with pytest.raises(ApiError, match=says) as error:
            read_body(bodies, *pieces)
        assert error.value.status == status_
    # What was refused is forgotten.
    assert read_body(bodies, b" " * 90 + b"[]") == []

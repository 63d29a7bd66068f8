"""Connections of clients that lie or never end: each is refused, and the next one is answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from edge.serving import connection
from tests.edge import own_loop
from tests.edge.serving_process import ServerProcess, serving_tiny, status

Tiny = Callable[..., Path]
POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
HELLO = (
    b'{"model": "m", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1, "temperature": 0}'
)
WHOLE = POST + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(HELLO) + HELLO


@pytest.fixture(scope="module")
def server(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving_tiny(tiny("phi4-mini"), tmp_path_factory.mktemp("model")) as process:
        yield process


@pytest.fixture(autouse=True)
def _still_serves(server: ServerProcess) -> Iterator[None]:
    yield
    assert status(server.tell(WHOLE)) == 200
    assert server.health()[1] == {"status": "ok", "running": 0, "waiting": 0}


def test_lengths_that_are_lies(server: ServerProcess) -> None:
    # More is promised than comes, by one that leaves and one that said how much too soon.
    assert server.tell(POST + b"Content-Length: 100\r\n\r\n{}") == b""
    assert status(server.tell(POST + b"Content-Length: 99999999999\r\n\r\n{}")) == 413
    # Less is promised than comes: the rest is no request.
    answers = server.tell(POST + b"Content-Length: 2\r\n\r\n{}GARBAGE\r\n\r\n")
    assert status(answers) == 400
    assert answers.count(b"HTTP/1.1 400") == 2
    for wrong in (
        b"Content-Length: -1",
        b"Content-Length: 2\r\nContent-Length: 3",
        b"Transfer-Encoding: gzip",
    ):
        assert status(server.tell(POST + wrong + b"\r\n\r\n{}")) in (400, 501)


def test_chunks_without_end(server: ServerProcess) -> None:
    chunk = b"100000\r\n" + b" " * (1 << 20) + b"\r\n"
    answer = server.tell(POST + b"Transfer-Encoding: chunked\r\n\r\n", *([chunk] * 40))
    assert status(answer) == 413
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (HELLO[:9], HELLO[9:])) + b"0\r\n\r\n"
    assert (
        status(server.tell(POST + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n", chunks)) == 200
    )


def test_heads_that_are_too_large(server: ServerProcess) -> None:
    for head in (b"X: " + b"a" * 1_000_000, b"\r\n".join(b"X-%d: a" % i for i in range(100_000))):
        answer = server.tell(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n" + head + b"\r\n\r\n")
        assert not answer or status(answer) == 400  # reset, where more came than is read


def test_requests_one_behind_the_other_on_one_connection(server: ServerProcess) -> None:
    post = POST + b"Content-Length: %d\r\n\r\n" % len(HELLO) + HELLO
    get = b"GET /v1/models/m HTTP/1.1\r\nHost: localhost\r\n"
    answers = server.tell(post + get + b"\r\n" + post + get + b"Connection: close\r\n\r\n")
    assert answers.count(b"HTTP/1.1 200 OK") == 4
    kinds = [b"chat.completion", b'"object":"model"'] * 2
    assert [
        kind in part for kind, part in zip(kinds, answers.split(b"HTTP/1.1 200 OK")[1:], strict=True)
    ] == [True] * 4


def test_a_connection_that_asks_nothing_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that sends a byte now and then as well, and one that goes on with a body that was refused; a long answer
    is not cut."""
    monkeypatch.setattr(connection, "PATIENCE", 0.3)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0.6 if scope["path"] == "/long" else 0)
        await send({"type": "http.response.start", "status": 413, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    async def scene() -> list[float]:
        config = uvicorn.Config(app, log_config=None, timeout_keep_alive=60)
        config.load()
        state = ServerState()
        loop = asyncio.get_running_loop()
        listening = await loop.create_server(lambda: connection.Connection(config, state, {}), "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        heads = {
            b"G": b"E",
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n": b"x",
            b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n": b"",
        }
        lasted = await asyncio.gather(*(drip(port, head, more) for head, more in heads.items()))
        listening.close()
        return lasted

    async def drip(port: int, head: bytes, more: bytes) -> float:
        """Seconds until the server closes the connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        began = time.monotonic()
        writer.write(head)

        async def go_on() -> None:
            while True:
                await asyncio.sleep(0.05)
                writer.write(more)

        going_on = asyncio.ensure_future(go_on())
        with suppress(ConnectionError):
            async with asyncio.timeout(20):
                while await reader.read(1000):
                    pass
        going_on.cancel()
        writer.close()
        return time.monotonic() - began

    head, body, long = own_loop.run(scene())
    assert head < 10
    assert body < 10
    assert 0.6 < long < 10

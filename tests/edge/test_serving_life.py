"""The life of `edge serve`: who may ask, how many, what happens when somebody leaves, and how it ends."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from converters.errors import UnsupportedError
from edge.serving.server import bind, is_loopback, url
from quant.recipe import Recipe
from tests.converters.gguf_support import write_gguf
from tests.edge.serving_process import ServerProcess, serving

Tiny = Callable[..., Path]
HELLO: Any = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def model(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    write_gguf(tiny("phi4-mini"), path, Recipe.preset("f32"), context=4096)
    return path


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    log = tmp_path_factory.mktemp("log") / "stderr"
    with serving(model, "--queue", "1", "--name", "m", log=log) as process:
        yield process


def ask(server: ServerProcess, key: str = "none", **options: Any) -> Any:
    """Greedy, this random model writes until its context is full."""
    asked: dict[str, Any] = {"model": "m", "messages": HELLO, "temperature": 0}
    return server.client(key).chat.completions.create(**asked | options)


def test_a_script_learns_where_it_is(server: ServerProcess) -> None:
    assert server.told["url"].startswith("http://127.0.0.1:")
    assert (server.told["model"], server.told["models"], server.told["token"]) == ("m", ["m"], None)
    assert server.told["context_length"] == 4096
    assert [m.id for m in server.client().models.list()] == ["m"]


def send(server: ServerProcess) -> socket.socket:
    """A request without end on a connection that is still open."""
    body = json.dumps({"model": "m", "messages": HELLO, "temperature": 0}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    connection = socket.create_connection(("127.0.0.1", server.port))
    connection.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
    return connection


def wait_for_load(server: ServerProcess, running: int, waiting: int) -> None:
    end = time.monotonic() + 20
    while (found := server.health()[1]) != {"status": "ok", "running": running, "waiting": waiting}:
        assert time.monotonic() < end, found
        time.sleep(0.01)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_the_engine(server: ServerProcess, stream: bool) -> None:
    before = server.log.count("went away")
    if stream:
        chunks = ask(server, stream=True)
        assert [next(chunks) for _ in range(4)]
        chunks.close()
    else:
        send(server).close()
    server.wait_for(lambda log: log.count("went away") == before + 1)
    assert ask(server, max_tokens=3).usage.completion_tokens == 3


def test_a_client_that_leaves_the_line_frees_its_place(server: ServerProcess) -> None:
    with send(server):
        wait_for_load(server, 1, 0)
        with send(server):
            wait_for_load(server, 1, 1)
        wait_for_load(server, 1, 0)
    wait_for_load(server, 0, 0)


def test_who_finds_the_line_full_is_told_when_to_come_back(server: ServerProcess) -> None:
    first = ask(server, stream=True)
    next(first)
    results: list[Any] = []
    refused = threading.Event()

    def one() -> None:
        try:
            results.append(ask(server, max_tokens=2).usage.completion_tokens)
        except openai.RateLimitError as error:
            results.append((error.code, int(error.response.headers["retry-after"])))
            refused.set()

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert refused.wait(30)
    first.close()
    for thread in threads:
        thread.join()
    (code, seconds), tokens = results
    assert (code, tokens) == ("queue_full", 2)
    assert 1 <= seconds <= 60


def test_a_token_is_made_where_others_can_connect_and_answers_may_finish(model: Path, tmp_path: Path) -> None:
    options = ("--host", "0.0.0.0", "--cors", "https://good.example", "--grace", "60")
    with serving(model, *options, log=tmp_path / "log") as server:
        server.told["url"] = server.told["url"].replace("0.0.0.0", "127.0.0.1")
        token = server.told["token"]
        assert len(token) >= 32
        wrong = ("Bearer wrong", f"Bearer {token[:-1]}", f"Basic {token}", token, b"Bearer \xfc")
        for key in wrong:
            answer = server.get("/models", authorization=key)
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
            assert answer.headers["www-authenticate"] == "Bearer"
        assert server.client(token).models.list().data[0].id == "tiny.gguf"
        allowed = server.get("/models", origin="https://good.example", authorization=f"bearer {token}")
        assert allowed.headers["access-control-allow-origin"] == "https://good.example"
        preflight = {
            "origin": "https://good.example",
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization,content-type",
            "access-control-request-private-network": "true",
        }
        allowed = httpx2.options(server.told["url"] + "/chat/completions", headers=preflight)
        assert (allowed.status_code, allowed.headers["access-control-allow-private-network"]) == (200, "true")
        preflight["origin"] = "https://evil.example"
        assert httpx2.options(server.told["url"] + "/models", headers=preflight).status_code == 400
        assert server.health() == (200, {"status": "ok", "running": 0, "waiting": 0})
        assert "not encrypted" in server.log

        chunks = ask(server, key=token, model="tiny.gguf", stream=True, max_tokens=300)
        next(chunks)
        server.process.send_signal(signal.SIGTERM)
        server.wait_for(lambda log: "stopping" in log)
        with pytest.raises((httpx2.ConnectError, httpx2.ReadError)):
            server.get("/models")
        *_, last = chunks
        assert last.choices[0].finish_reason == "length"
        assert server.process.wait(60) == 0
        assert server.log.splitlines()[-1] == "stopped"


def test_a_second_ctrl_c_does_not_wait(model: Path, tmp_path: Path) -> None:
    with serving(model, "--grace", "60", log=tmp_path / "log") as server:
        chunks = ask(server, model="tiny.gguf", stream=True)
        next(chunks)
        server.process.send_signal(signal.SIGINT)
        server.wait_for(lambda log: "stopping" in log)
        assert [next(chunks) for _ in range(5)]  # the first one let it go on
        server.process.send_signal(signal.SIGINT)
        with pytest.raises((openai.APIError, httpx2.RemoteProtocolError)):
            list(chunks)
        assert server.process.wait(60) == 0
        assert "answers cut: 1" in server.log


def test_what_takes_longer_is_cut_and_told_so(model: Path, tmp_path: Path) -> None:
    with serving(model, "--grace", "0", "--cors", "*", log=tmp_path / "log") as server:
        chunks = ask(server, model="tiny.gguf", stream=True)
        next(chunks)
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises(openai.APIError, match="the server is stopping"):
            list(chunks)
        assert server.process.wait(60) == 0
        assert "answers cut: 1" in server.log
        assert "any web page that is open on this computer can ask" in server.log


def test_a_place_that_is_taken_is_told_so(server: ServerProcess) -> None:
    with pytest.raises(UnsupportedError, match=r"cannot listen on 127\.0\.0\.1 port .*in use"):
        bind("127.0.0.1", server.port)


def test_loopback_of_either_kind() -> None:
    for host, start in (("127.0.0.2", "http://127.0.0.2:"), ("::1", "http://[::1]:")):
        try:
            bound = bind(host, 0)
        except UnsupportedError:
            pytest.skip(f"this machine has no {host}")
        with bound:
            assert is_loopback(bound)
            assert url(bound).startswith(start)

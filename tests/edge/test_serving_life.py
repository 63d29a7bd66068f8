"""The life of `edge serve`: who may ask, how many, what happens when somebody leaves, and how it ends."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from edge.runtimes import open_runtime
from edge.runtimes.protocol import Interruptible
from edge.serving.app import MAX_BODY
from edge.serving.errors import ApiError
from edge.serving.worker import GivenUpError, Worker
from tests.edge.engines import ENGINES, random_ids, write_variant
from tests.edge.serving_process import ServerProcess, serving

Tiny = Callable[..., Path]
HELLO: Any = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def model(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_variant("gguf", tiny("phi4-mini"), tmp_path_factory.mktemp("model"), context=4096)


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    log = tmp_path_factory.mktemp("log") / "stderr"
    with serving(model, "--queue", "1", "--name", "m", log=log) as process:
        yield process


def ask(server: ServerProcess, **options: Any) -> Any:
    """Greedy, this random model writes until its context is full."""
    asked: dict[str, Any] = {"model": "m", "messages": HELLO, "temperature": 0}
    return server.client().chat.completions.create(**asked | options)


def test_a_script_learns_where_it_is(server: ServerProcess) -> None:
    assert server.told["url"].startswith("http://127.0.0.1:")
    assert (server.told["model"], server.told["models"], server.told["token"]) == ("m", ["m"], None)
    assert server.told["context_length"] == 4096
    assert [m.id for m in server.client().models.list()] == ["m"]


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_the_engine(server: ServerProcess, stream: bool) -> None:
    before = server.log.count("went away")
    if stream:
        chunks = ask(server, stream=True)
        assert [next(chunks) for _ in range(4)]
        chunks.close()
    else:
        body = json.dumps({"model": "m", "messages": HELLO, "temperature": 0}).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        port = int(server.told["url"].split(":")[2].split("/")[0])
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
    server.wait_for(lambda log: log.count("went away") == before + 1)
    assert ask(server, max_tokens=3).usage.completion_tokens == 3


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


def test_bodies_that_are_no_requests(server: ServerProcess) -> None:
    cases = {
        b"{": 400,
        b"[" * 100_000: 400,
        b"\xff": 400,
        b"[]": 400,
        b" " * (MAX_BODY + 1): 413,
    }
    for body, status in cases.items():
        answer = server.post("/chat/completions", body)
        assert answer.status_code == status
        assert answer.json()["error"]["message"]
    # What a page of another site can send unasked.
    assert server.post("/chat/completions", b"{}", **{"content-type": "text/plain"}).status_code == 415


def test_a_foreign_page_gets_nothing(server: ServerProcess) -> None:
    """Under another name (DNS rebinding) it is refused, and no header lets a page read an answer (CORS)."""
    assert server.get("/models", host="evil.example").status_code == 403
    assert "access-control-allow-origin" not in server.get("/models", origin="https://evil.example").headers


def test_a_token_is_made_where_others_can_connect_and_asked_for(model: Path, tmp_path: Path) -> None:
    options = ("--host", "0.0.0.0", "--cors", "https://good.example")
    with serving(model, *options, log=tmp_path / "log") as server:
        server.told["url"] = server.told["url"].replace("0.0.0.0", "127.0.0.1")
        token = server.told["token"]
        assert len(token) >= 32
        for key in ("wrong", "x", token[:-1]):
            answer = server.get("/models", authorization=f"Bearer {key}")
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
        assert server.client(token).models.list().data[0].id == "tiny.gguf"
        allowed = server.get("/models", origin="https://good.example", authorization=f"Bearer {token}")
        assert allowed.headers["access-control-allow-origin"] == "https://good.example"
        assert "not encrypted" in server.log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_it_lets_answers_finish(model: Path, tmp_path: Path, number: int) -> None:
    with serving(model, "--grace", "60", log=tmp_path / "log") as server:
        chunks = ask(server, model="tiny.gguf", stream=True, max_tokens=300)
        next(chunks)
        server.process.send_signal(number)
        server.wait_for(lambda log: "stopping" in log)
        with pytest.raises((httpx2.ConnectError, httpx2.ReadError)):
            server.get("/models")
        *_, last = chunks
        assert last.choices[0].finish_reason == "length"
        assert server.process.wait(60) == 0
        assert server.log.splitlines()[-1] == "stopped"


def test_what_takes_longer_is_cut_and_told_so(model: Path, tmp_path: Path) -> None:
    with serving(model, "--grace", "0", log=tmp_path / "log") as server:
        chunks = ask(server, model="tiny.gguf", stream=True)
        next(chunks)
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises(openai.APIError, match="the server is stopping"):
            list(chunks)
        assert server.process.wait(60) == 0
        assert "answers cut: 1" in server.log


def test_the_worker_stops_what_nobody_waits_for() -> None:
    """Work that would never end by itself ends with its reader, and what waits behind it is done, in order."""
    ended: list[str] = []

    def endless(check: Callable[[], None]) -> Generator[int]:
        try:
            while True:
                yield 1
        finally:
            ended.append("endless")

    def deaf(check: Callable[[], None]) -> Generator[int]:
        """As the reading of a long prompt: no yield, but it checks."""
        yield 0
        try:
            while True:
                check()
        except GivenUpError:
            ended.append("deaf")
            raise

    def short(name: str) -> Callable[[Callable[[], None]], Generator[int]]:
        def work(check: Callable[[], None]) -> Generator[int]:
            ended.append(name)
            yield 2

        return work

    async def everything(events: AsyncGenerator[int]) -> list[int]:
        async with aclosing(events):
            return [event async for event in events]

    async def scene() -> None:
        for work in (endless, deaf):
            async with aclosing(worker.run(work)) as events:
                await anext(events)
                waiting = [asyncio.ensure_future(everything(worker.run(short(name)))) for name in ("a", "b")]
                await asyncio.sleep(0)
                with pytest.raises(ApiError) as full:
                    await everything(worker.run(short("c")))
                assert full.value.status == 429
            assert await asyncio.gather(*waiting) == [[2], [2]]
        worker.refuse()
        with pytest.raises(ApiError) as stopping:
            await everything(worker.run(short("d")))
        assert stopping.value.status == 503

    worker: Worker[int] = Worker(2)
    try:
        asyncio.run(scene())
    finally:
        worker.close()
    assert ended == ["endless", "a", "b", "deaf", "a", "b"]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_prompt_that_is_given_up_leaves_a_sound_cache(engine: str, tiny: Tiny, tmp_path: Path) -> None:
    runtime = open_runtime(write_variant(engine, tiny("phi4-mini"), tmp_path, context=2048), threads=1)
    assert isinstance(runtime, Interruptible)
    ids = random_ids(1300)
    whole = runtime.append(ids)
    runtime.rewind(0)

    def give_up() -> None:
        raise GivenUpError

    runtime.between = give_up
    with pytest.raises(GivenUpError):
        runtime.append(ids)
    assert 0 < runtime.position < len(ids)
    runtime.between = lambda: None
    # In the batches of the whole prompt: bit for bit the same.
    assert (runtime.append(ids[runtime.position :]) == whole).all()
    runtime.close()

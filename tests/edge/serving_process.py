"""`edge serve` as a process of its own, and clients of it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import openai

from quant.recipe import Recipe
from tests.converters.gguf_support import write_gguf

EDGE = [sys.executable, "-c", "import sys; from edge.cli import main; sys.exit(main())"]
ROOT = Path(__file__).parents[2]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONUTF8": "1"}


class ServerProcess:
    """`told` is the line on stdout that says where it is."""

    def __init__(self, model: Path, *options: str, log: Path) -> None:
        self._log = log
        self.variant = ""
        with log.open("w") as file:
            self.process = subprocess.Popen(
                [*EDGE, "serve", str(model), "--port", "0", "--threads", "1", "--json", *options],
                stdout=subprocess.PIPE,
                stderr=file,
                env=environment(),
                text=True,
            )
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, self.log
        self.told: dict[str, Any] = json.loads(line)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def client(self, key: str = "none") -> openai.OpenAI:
        return openai.OpenAI(base_url=self.told["url"], api_key=key, max_retries=0, timeout=60)

    def get(self, path: str, **headers: str | bytes) -> httpx2.Response:
        return httpx2.get(self.told["url"] + path, headers=headers)

    def health(self) -> tuple[int, Any]:
        answer = httpx2.get(self.told["url"].removesuffix("/v1") + "/health")
        return answer.status_code, answer.json()

    @property
    def port(self) -> int:
        return int(self.told["url"].removesuffix("/v1").rpartition(":")[2])

    def post(self, path: str, body: Any, **headers: str) -> httpx2.Response:
        """`body` as JSON, or bytes as they are."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"content-type": "application/json"} | headers
        return httpx2.post(self.told["url"] + path, content=data, headers=headers, timeout=60)

    def tell(self, *pieces: bytes) -> bytes:
        """All that is answered to these bytes until the server closes the connection, or is silent for a second."""
        answer = b""
        with socket.create_connection(("127.0.0.1", self.port), timeout=1) as there, suppress(OSError):
            for piece in pieces:
                there.sendall(piece)
            while data := there.recv(1 << 16):
                answer += data
        return answer

    def wait_for(self, found: Callable[[str], bool], seconds: float = 20) -> str:
        """The log once `found` is true of it."""
        end = time.monotonic() + seconds
        while not found(self.log):
            assert time.monotonic() < end, self.log
            time.sleep(0.02)
        return self.log

    def stop(self, number: int = signal.SIGTERM) -> int:
        """The exit code."""
        self.process.send_signal(number)
        return self.process.wait(60)


def status(answer: bytes) -> int:
    """Of the first answer among what `ServerProcess.tell` gives."""
    return int(answer.split(b" ", 2)[1])


@contextmanager
def serving(model: Path, *options: str, log: Path) -> Iterator[ServerProcess]:
    server = ServerProcess(model, *options, log=log)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()


@contextmanager
def serving_tiny(checkpoint: Path, directory: Path) -> Iterator[ServerProcess]:
    """A server of a random model, named m, with a context of 1024."""
    write_gguf(checkpoint, directory / "tiny.gguf", Recipe.preset("f32"), context=1024)
    with serving(directory / "tiny.gguf", "--name", "m", log=directory / "log") as process:
        yield process

"""The life of the server: a socket, the readiness that scripts wait for, and an end that lets answers finish."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager
from ipaddress import ip_address
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from converters.errors import UnsupportedError
from edge.serving.connection import PATIENCE, Connection
from edge.serving.events import Event
from edge.serving.worker import Worker

_LAST_WORDS = 5
"""Seconds for the connections to close after the answers have been cut."""
_CONNECTIONS = 256
"""At one time; more are told 503. Systems commonly let a process have 1024 files."""


def bind(host: str, port: int) -> socket.socket:
    """A socket that nobody can connect to yet. Raises UnsupportedError when the place is taken or not ours."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
        except OSError:
            bound.close()
            raise
    except OSError as error:
        raise _taken(host, port, error) from None
    return bound


def _taken(host: str, port: int, error: OSError) -> UnsupportedError:
    return UnsupportedError(
        f"cannot listen on {host} port {port}: {error.strerror or error}",
        hint="--port N with another N (0: any that is free), or another --host",
    )


def is_loopback(bound: socket.socket) -> bool:
    return ip_address(bound.getsockname()[0]).is_loopback


def url(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"


class Server(uvicorn.Server):
    """`run` returns once SIGINT or SIGTERM has come and the answers have ended, after `grace` seconds by force; a
    second Ctrl-C does not wait."""

    def __init__(
        self,
        app: ASGIApp,
        worker: Worker[Event],
        *,
        grace: float,
        ready: Callable[[], None],
        log: Callable[[str], None],
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=Connection,
                limit_concurrency=_CONNECTIONS,
                timeout_keep_alive=PATIENCE,
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                lifespan="off",
                ws="none",
                timeout_graceful_shutdown=int(grace) + _LAST_WORDS,
            )
        )
        self._worker = worker
        self._grace = grace
        self._ready = ready
        self._log = log

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        except OSError as error:  # two may be bound to one port until the first of them listens
            host, port = (sockets or [])[0].getsockname()[:2]
            raise _taken(host, port, error) from None
        self._loop = asyncio.get_running_loop()
        self._ready()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Being asked to stop is how a server ends: it is not raised again afterwards."""
        before = {
            number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        again = self.should_exit
        super().handle_exit(sig, frame)
        if hasattr(self, "_loop"):
            self._loop.call_soon_threadsafe(self._cut if again else self._stop)

    def _stop(self) -> None:
        self._worker.drain()
        for listening in self.servers:  # uvicorn does so too, at its next tick
            listening.close()
        running, waiting = self._worker.load
        if running + waiting:
            self._log(f"stopping; {self._grace:g} s to finish for answers under way: {running + waiting}")
        self._loop.call_later(self._grace, self._cut)

    def _cut(self) -> None:
        if cut := self._worker.cut():
            self._log(f"answers cut: {cut}")

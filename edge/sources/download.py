"""One file over HTTP: resumed where it broke off, verified before it gets its name."""

from __future__ import annotations

import hashlib
import os
import ssl
import time
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import BinaryIO

from converters.errors import MachineError, SourceError
from edge.progress import Progress
from edge.sources import web
from edge.sources.cache import mismatch

_ATTEMPTS = 5
_BACKOFF_SECONDS = 0.2
_CHUNK = 1 << 18


def fetch(
    url: str,
    target: Path,
    *,
    size: int | None,
    sha256: str | None,
    label: str,
    progress: Progress,
    authorization: str | None = None,
) -> str:
    """Download `url` to `target` and return its SHA-256.

    Bytes gather in `target.part`, which a later call continues with an HTTP range request; only a file of the
    given size and hash is renamed to `target`. Raises SourceError (names `label` and both hashes), AccessError,
    MachineError. The caller keeps other processes away from `target`.
    """
    part = target.with_name(f"{target.name}.part")
    progress.stage(f"download {label}", size)
    try:
        if target.exists():
            # Left by a caller that was killed; checked again like any beginning.
            target.replace(part)
        resumed = part.exists()
        with part.open("a+b", buffering=0) as file:
            actual = _Download(url, file, size, label, progress, authorization).run()
        if sha256 is None or actual == sha256:
            part.replace(target)
            _sync_directory(target.parent)
            return actual
        part.unlink()
    except OSError as error:
        hint = "check free space and rights in EDGE_CACHE_DIR"
        raise MachineError(f"cannot store {label}: {error}", hint=hint) from error
    finally:
        progress.done()
    if not resumed:
        raise mismatch(label, sha256, actual, hint=f"nothing was kept; {web.host(url)} serves another file")
    # The part that lay there from before may be what is damaged: once more, from the start.
    return fetch(
        url,
        target,
        size=size,
        sha256=sha256,
        label=label,
        progress=progress,
        authorization=authorization,
    )


class _Download:
    """One file over as many connections as it takes."""

    def __init__(
        self,
        url: str,
        file: BinaryIO,
        size: int | None,
        label: str,
        progress: Progress,
        authorization: str | None,
    ) -> None:
        self._url, self._file, self._size, self._label = url, file, size, label
        self._progress, self._authorization = progress, authorization
        self._digest = hashlib.sha256()

    def run(self) -> str:
        """The SHA-256 of all of the file, which is then complete and on the disk."""
        self._take_up()
        failures = 0
        while self._size is None or self._have < self._size:
            before = self._have
            try:
                self._connect()
                break
            except (HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
                if isinstance(error, web.RangeRefusedError):
                    self._start_over()
                failures = 1 if self._have > before else failures + 1
                if failures >= _ATTEMPTS:
                    hint = "run the same command again: it continues where it stopped"
                    raise SourceError(f"download of {self._label} broke off: {error}", hint=hint) from error
                time.sleep(_BACKOFF_SECONDS * 2**failures)
        os.fsync(self._file.fileno())
        return self._digest.hexdigest()

    @property
    def _have(self) -> int:
        return self._file.tell()

    def _take_up(self) -> None:
        """Hash what an earlier call left."""
        self._file.seek(0)
        while chunk := self._file.read(_CHUNK):
            self._digest.update(chunk)
            self._progress.advance(len(chunk))
        if self._size is not None and self._have > self._size:
            self._start_over()

    def _start_over(self) -> None:
        self._progress.advance(-self._have)
        self._file.seek(0)
        self._file.truncate()
        self._digest = hashlib.sha256()

    def _connect(self) -> None:
        """One connection. Returns when the server sent all it announced."""
        have = self._have
        headers = {"Range": f"bytes={have}-"} if have else {}
        with web.connect(self._url, headers, self._label, self._authorization) as response:
            if have and not _continues(response, have):
                self._start_over()
            announced, received = _length(response), 0
            while chunk := response.read(_CHUNK):
                received += len(chunk)
                if self._size is not None and self._have + len(chunk) > self._size:
                    self._start_over()
                    raise SourceError(f"{self._label} is longer than the locked {self._size} bytes",
                                      hint=f"{web.host(self._url)} serves another file")  # fmt: skip
                self._file.write(chunk)
                self._digest.update(chunk)
                self._progress.advance(len(chunk))
        if announced is not None and received < announced:
            raise HTTPException(f"the connection ended after {received} of {announced} bytes")
        if self._size is not None and self._have < self._size:
            short = self._have
            self._start_over()
            raise SourceError(f"{self._label} has {short} bytes, locked are {self._size}",
                              hint=f"{web.host(self._url)} serves another file")  # fmt: skip


def _continues(response: HTTPResponse, have: int) -> bool:
    return response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")


def _length(response: HTTPResponse) -> int | None:
    text = response.headers.get("Content-Length", "")
    return int(text) if text.isdecimal() else None


def _sync_directory(directory: Path) -> None:
    if os.name == "nt":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""KV states on disk: one file a state, checked when read, the least recently used ones go first.

A file is `MAGIC`, one line of JSON {"key", "length", "sha256"} and the state's bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

MAGIC = b"edge-kv-state 1\n"
LIMIT = 2 << 30
"""Bytes of all states together, unless EDGE_PREFIX_CACHE_MB says otherwise."""
_MAX_HEADER = 4096
_ABANDONED_S = 3600
"""A younger file that is no state yet may be one that another chat is writing."""


def limit_from_environment() -> int:
    """EDGE_PREFIX_CACHE_MB in bytes, or LIMIT where it is not set to a number."""
    text = os.environ.get("EDGE_PREFIX_CACHE_MB", "")
    return int(text) << 20 if text.isdecimal() else LIMIT


class StateStore:
    """Never raises for what it finds on disk or cannot do there: `note` is told, in one line."""

    def __init__(self, directory: Path, note: Callable[[str], None], *, limit: int | None = None) -> None:
        self._directory = directory
        self._note = note
        self._limit = limit_from_environment() if limit is None else limit

    def load(self, key: str) -> bytes | None:
        """The state that was saved under `key` (64 hex digits), or None. Marks it as used."""
        file = self._file(key)
        try:
            with file.open("rb") as stream:
                data = _payload(stream, key)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            self._note(f"prefix cache: {file.name} is left unread: {_reason(error)}")
            return None
        with suppress(OSError):  # a cache that cannot be written to
            os.utime(file)
        return data

    def save(self, key: str, data: bytes) -> None:
        """Keep `data` under `key`, whole or not at all, and make room for it."""
        if len(data) > self._limit:
            self._note(
                f"prefix cache: a state of {len(data) >> 20} MiB is over the limit of {self._limit >> 20}"
            )
            return
        header = {"key": key, "length": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        file = self._file(key)
        part = file.with_name(f"{file.name}.{secrets.token_hex(8)}.part")
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._make_room(len(data))
            try:
                part.write_bytes(MAGIC + json.dumps(header).encode() + b"\n" + data)
                part.replace(file)
            finally:
                part.unlink(missing_ok=True)
        except OSError as error:
            self._note(f"prefix cache: cannot write {self._directory}: {_reason(error)}")

    def _file(self, key: str) -> Path:
        return self._directory / f"{key[:32]}.kv"

    def _make_room(self, needed: int) -> None:
        found: list[tuple[int, int, Path]] = []
        for file in self._directory.iterdir():
            with suppress(OSError):  # another chat was faster
                status = file.stat()
                if file.suffix == ".kv" or time.time() - status.st_mtime > _ABANDONED_S:
                    found.append((status.st_mtime_ns, status.st_size, file))
        total = needed + sum(size for _, size, _ in found)
        for _, size, file in sorted(found):
            if total <= self._limit:
                return
            with suppress(OSError):
                file.unlink()
            total -= size


def _payload(stream: BinaryIO, key: str) -> bytes:
    """What follows the header. Raises ValueError saying what is wrong with the file."""
    if stream.read(len(MAGIC)) != MAGIC:
        raise ValueError("it is no state of this format")
    header: Any = json.loads(stream.readline(_MAX_HEADER))
    if not isinstance(header, dict) or header.get("key") != key:
        raise ValueError("it belongs to another model or prompt")
    length = os.fstat(stream.fileno()).st_size - stream.tell()
    if header.get("length") != length:
        raise ValueError(f"it holds {length} bytes, its header says {header.get('length')}")
    data = stream.read(length)
    if hashlib.sha256(data).hexdigest() != header.get("sha256"):
        raise ValueError("its SHA-256 is not the one in its header")
    return data


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    unreadable = isinstance(error, json.JSONDecodeError | UnicodeDecodeError | RecursionError)
    return "its header is damaged" if unreadable else str(error)

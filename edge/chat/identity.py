"""Which model a state belongs to: a hash that changes with the file, without reading gigabytes at each start."""

from __future__ import annotations

import hashlib
import json
import re
import time
from contextlib import suppress
from pathlib import Path

from converters.errors import MachineError
from edge.sources import cache

_SPLIT = re.compile(r"(.*)-00001-of-(\d{5})\.gguf")
"""llama.cpp's names for a model in parts (llama_split_path)."""
_SETTLED_NS = 3 * 10**9
"""See edge.sources.cache: a file younger than this could change again without its times showing it."""


def model_hash(file: Path, known: str | None) -> str:
    """Of a model's file, and of all its parts where it is split.

    `known` is the SHA-256 in a bundle's manifest; it counts together with the file's size and times, so that
    a file that was altered since has another hash. Other files are read once; a stamp remembers their hash.
    """
    match = _SPLIT.fullmatch(file.name)
    files = [file]
    if match:
        names = [f"{match[1]}-{i:05}-of-{match[2]}.gguf" for i in range(1, int(match[2]) + 1)]
        files = [part for name in names if (part := file.with_name(name)).is_file()]
    parts = [[known, *_identity(file)]] if known else [[_stamped(part)] for part in files]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _identity(file: Path) -> list[int]:
    status = file.stat()
    return [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _stamped(file: Path) -> str:
    name = hashlib.sha256(str(file.resolve()).encode("utf-8", "surrogateescape")).hexdigest()
    stamp = cache.cache_directory() / "stamps" / f"{name[:32]}.model"
    identity = _identity(file)
    with suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads(stamp.read_text())
        if found["identity"] == identity:
            return str(found["sha256"])
    digest = cache.sha256_of(file)
    if time.time_ns() - identity[-1] > _SETTLED_NS and _identity(file) == identity:
        with suppress(OSError, MachineError):  # a cache that cannot be written to
            cache.place("stamps", stamp.name)
            cache.write_whole(stamp, json.dumps({"identity": identity, "sha256": digest}).encode())
    return digest

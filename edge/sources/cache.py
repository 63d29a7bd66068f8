"""Where models lie on this machine, and whether they are still the bytes that were verified."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import platformdirs
from filelock import FileLock

from converters.checkpoint import Checkpoint
from converters.errors import MachineError, SourceError
from edge.lock import LockedFile
from edge.progress import Progress

_CHUNK = 1 << 20
# Times have the grain of the kernel's clock tick or the filesystem's (2 s on FAT): a file that changed just
# now could change again without its times showing it.
_SETTLED_NS = 3 * 10**9


def cache_directory() -> Path:
    """`EDGE_CACHE_DIR`, or the platform's cache directory for edge."""
    override = os.environ.get("EDGE_CACHE_DIR")
    return (
        Path(override).absolute() if override else Path(platformdirs.user_cache_dir("edge", appauthor=False))
    )


def place(*parts: str) -> Path:
    """A path inside the cache whose parent directory exists. Raises MachineError where it cannot be made."""
    path = cache_directory().joinpath(*parts)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MachineError(
            f"cannot make the cache directory {path.parent}: {error.strerror}",
            hint="set EDGE_CACHE_DIR to a directory that can be written",
        ) from error
    return path


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the cache entry `path` against other processes; waits for whoever holds it."""
    lock = FileLock(path.with_name(f"{path.name}.lock"))
    try:
        lock.acquire()
    except OSError as error:
        hint = "set EDGE_CACHE_DIR to a directory that can be written"
        raise MachineError(f"cannot lock {path.parent}: {error.strerror}", hint=hint) from error
    try:
        yield
    finally:
        lock.release()


def sha256_of(path: Path, progress: Progress | None = None) -> str:
    """SHA-256 of a file, streamed."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            if progress:
                progress.advance(len(chunk))
    return digest.hexdigest()


def locked_file(root: Path, path: str, progress: Progress | None = None) -> LockedFile:
    """Size and hash of `root/path` as they are now."""
    file = root / path
    return LockedFile(path, file.stat().st_size, sha256_of(file, progress))


def mismatch(label: str, expected: str, actual: str, *, hint: str) -> SourceError:
    return SourceError(f"{label} is not the locked file: sha256 {actual}, locked {expected}", hint=hint)


def is_intact(path: Path, expected: LockedFile, stamp: Path, progress: Progress | None = None) -> str | None:
    """None when `path` holds the expected bytes, otherwise the SHA-256 that it has.

    `stamp` remembers the inode's identity and times at the last full hash: a file that the kernel has not
    seen changed since (a write always moves its change time) is not hashed again.
    """
    status = path.stat()
    identity = [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    wanted = {"sha256": expected.sha256, "identity": identity}
    try:
        if json.loads(stamp.read_text()) == wanted:
            return None
    except (OSError, ValueError):
        pass
    actual = sha256_of(path, progress)
    if actual != expected.sha256:
        return actual
    if time.time_ns() - status.st_ctime_ns > _SETTLED_NS:
        write_whole(stamp, json.dumps(wanted).encode())
    return None


def write_whole(path: Path, data: bytes) -> None:
    """Write `data` under a temporary name, then rename."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_bytes(data)
    part.replace(path)


def checkpoint_key(checkpoint: Checkpoint, **more: Any) -> str:
    """A name in the cache for what is made of a checkpoint and of `more`, which JSON must hold.

    Weights stand in by their files' sizes and times.
    """
    files = sorted({info.file for info in checkpoint.tensors.values()})
    identity = {
        "config": checkpoint.config,
        "files": [[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in files],
        **more,
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:24]

"""Run a command in its own process and say what it took."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cost:
    """Wall seconds and the largest resident set (bytes) of the process or of any of its children."""

    seconds: float
    peak_bytes: int

    @property
    def peak_mib(self) -> float:
        return self.peak_bytes / 2**20


def measure(command: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None) -> Cost:
    """Run `command` to its end. Raises RuntimeError with the end of its log when it fails."""
    with log.open("wb") as stream:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=stream, stderr=stream, env={**os.environ, **(env or {})})
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-12:])
        raise RuntimeError(f"{' '.join(command[:4])} ... exited with {process.returncode}\n{tail}")
    unit = 1 if sys.platform == "darwin" else 1024
    return Cost(seconds, usage.ru_maxrss * unit)


def forget(directory: Path) -> None:
    """Drop the page cache of all files below `directory`, so that every contender reads from the disk."""
    os.sync()
    for file in directory.rglob("*"):
        if file.is_file():
            descriptor = os.open(file, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def size(path: Path) -> int:
    """Bytes of a file, or of all files below a directory."""
    return (
        path.stat().st_size
        if path.is_file()
        else sum(f.stat().st_size for f in path.rglob("*") if f.is_file())
    )

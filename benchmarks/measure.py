"""Run a command in its own process and say what it took."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Cost:
    """Wall seconds and the largest resident set (bytes) of the process or of any of its descendants."""

    seconds: float
    peak_bytes: int

    @property
    def peak_mib(self) -> float:
        return self.peak_bytes / 2**20


def measure(command: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None) -> Cost:
    """Run `command` to its end (Linux). Raises RuntimeError with the end of its log when it fails.

    The peak is the kernel's high-water mark of each process, polled: what getrusage gives would count this
    process's own size, which a child inherits across fork and exec.
    """
    peak = 0
    with log.open("wb") as stream:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=stream, stderr=stream, env={**os.environ, **(env or {})})
        while process.poll() is None:
            peak = max(peak, _high_water(process.pid))
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(POLL_SECONDS)
        seconds = time.perf_counter() - began
    if process.returncode != 0:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-12:])
        raise RuntimeError(f"{' '.join(command[:4])} ... exited with {process.returncode}\n{tail}")
    return Cost(seconds, peak)


def _high_water(pid: int) -> int:
    """Largest VmHWM of `pid` and its descendants, in bytes; 0 when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return 0
    found = re.search(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE)
    own = int(found[1]) * 1024 if found else 0
    return max([own, *(_high_water(int(child)) for child in children)])


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

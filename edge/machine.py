"""What the machine is and how much of it this process has used, without importing an engine."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # it ships no types

_FLAGS = {
    "sse4_2": "SSE4.2", "avx": "AVX", "avx2": "AVX2", "fma": "FMA", "f16c": "F16C", "avx512f": "AVX-512",
    "avx512_vnni": "AVX512-VNNI", "avx_vnni": "AVX-VNNI", "avx512_bf16": "AVX512-BF16",
    "amx_int8": "AMX-INT8", "asimd": "NEON", "asimdhp": "FP16", "asimddp": "DOTPROD", "i8mm": "I8MM",
    "bf16": "BF16", "sve": "SVE",
    "FEAT_DotProd": "DOTPROD", "FEAT_I8MM": "I8MM", "FEAT_BF16": "BF16", "AdvSIMD": "NEON",
}  # fmt: skip


def peak_memory() -> int:
    """Largest resident set of this process so far, in bytes (0 where the system does not say)."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    status = Path("/proc/self/status")
    if status.is_file():
        # Not getrusage: on Linux its peak outlives exec, so that a large parent counts as this process.
        found = re.search(r"^VmHWM:\s*(\d+) kB$", status.read_text(encoding="ascii"), re.MULTILINE)
        return int(found[1]) * 1024 if found else 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS (getrusage(2))


def peak_memory_source() -> str:
    """What `peak_memory` reads here; ru_maxrss of a child process counts its parent's size at the fork too."""
    if sys.platform == "win32":
        return "peak_wset"
    return "VmHWM" if Path("/proc/self/status").is_file() else "ru_maxrss"


def cores() -> int:
    """Cores that this process may run on: its affinity mask, not the machine's count."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory() -> tuple[int, int]:
    """Total and available RAM in bytes; the total is the container's limit where one is set (cgroup v2)."""
    state = psutil.virtual_memory()
    limit = Path("/sys/fs/cgroup/memory.max")
    total, available = int(state.total), int(state.available)
    if limit.is_file():
        text = limit.read_text(encoding="ascii").strip()
        if text.isdigit() and int(text) < total:
            used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii"))
            total = int(text)
            available = min(available, max(0, total - used))
    return total, available


def instruction_sets() -> list[str]:
    """Vector extensions that the engines' kernels are chosen by, by their common names; [] when unknown."""
    words: set[str] = set()
    if sys.platform == "linux":
        info = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        found = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", info, re.MULTILINE)
        words = set(found[1].split()) if found else set()
    elif sys.platform == "darwin":
        text = subprocess.run(
            ["/usr/sbin/sysctl", "hw.optional", "machdep.cpu.features", "machdep.cpu.leaf7_features"],
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        words = set(re.findall(r"hw\.optional\.(?:arm\.)?(\w+): 1", text))
        words |= {w.lower().replace(".", "_") for w in re.findall(r"\b[A-Z0-9.]+\b", text)}
    return list(dict.fromkeys(name for flag, name in _FLAGS.items() if flag in words))


def processor() -> str:
    """The processor's name as the system tells it; the architecture where it tells none."""
    if sys.platform == "linux":
        info = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        if found := re.search(r"^model name\s*:\s*(.*\S)", info, re.MULTILINE):
            return found[1]
    return platform.processor() or platform.machine()


def describe() -> str:
    """Operating system, release and architecture, e.g. "Linux 6.8.0 x86_64"."""
    return f"{platform.system()} {platform.release()} {platform.machine()}"

"""The phone's libraries, run here: qemu-user for the CPU, musl for the linker and libc, a shim for bionic's own.

Needs Debian's qemu-user-static. musl is Debian's arm64 package, fetched by apt into a folder of the test.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.packaging import native

QEMU = shutil.which("qemu-aarch64-static")
HERE = Path(__file__).parent / "qemu"
_ZIG = (sys.executable, "-m", "ziglang", "cc", "-target", "aarch64-linux-musl", "-fno-sanitize=all", "-w")
TIMEOUT = 300


@dataclass(frozen=True)
class Phone:
    """root: where the arm64 linker lies; harness: the program; shims: libraries in place of Android's own."""

    root: Path
    harness: Path
    shims: Path

    def run(
        self, cpu: str, edge: Path, llama: Path, gguf: Path, prompt: str, count: int, logits: Path
    ) -> subprocess.CompletedProcess[str]:
        """Answer greedily on a CPU model of qemu; tokens on stdout, a line each."""
        variables = f"LD_LIBRARY_PATH={self.shims}:{llama.parent}", f"LD_PRELOAD={self.shims / 'liblog.so'}"
        command = [str(QEMU), "-L", str(self.root), "-cpu", cpu, "-E", variables[0], "-E", variables[1]]
        words = (self.harness, edge, llama, gguf, prompt, count, logits)
        return subprocess.run([*command, *map(str, words)], capture_output=True, text=True, timeout=TIMEOUT)


def build(output: Path) -> Phone:
    shims = output / "shims"
    shims.mkdir()
    include = [f"-I{folder}" for folder in native.jni_headers()]
    shared = (*_ZIG, "-O1", "-fno-builtin", "-shared", "-fPIC")
    _run(*shared, "-Wl,-soname,liblog.so", HERE / "bionic.c", "-o", shims / "liblog.so")
    empty = output / "android.c"
    empty.write_text("int android_stands_here;\n")
    _run(*shared, "-Wl,-soname,libandroid.so", empty, "-o", shims / "libandroid.so")
    _run(*_ZIG, "-O1", "-dynamic", "-rdynamic", *include, HERE / "harness.c", "-o", output / "harness")
    return Phone(musl(output / "root"), output / "harness", shims)


def musl(root: Path) -> Path:
    """Debian's musl for arm64, unpacked."""
    lists = root / "lists"
    (lists / "partial").mkdir(parents=True)
    options = [f"APT::Architecture=arm64", f"APT::Architectures::=arm64", f"Dir::State::Lists={lists}"]
    apt = ["apt-get", "-qq", *(word for option in options for word in ("-o", option))]
    subprocess.run([*apt, "update"], check=True, cwd=root)
    subprocess.run([*apt, "download", "musl"], check=True, cwd=root)
    (package,) = root.glob("musl_*_arm64.deb")
    subprocess.run(["dpkg-deb", "-x", str(package), str(root)], check=True)
    return root


def read_logits(file: Path) -> NDArray[np.float32]:
    return np.fromfile(file, np.float32)


def _run(*command: str | Path) -> None:
    subprocess.run([str(word) for word in command], check=True)

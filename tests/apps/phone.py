"""The phone's libraries, run here: qemu-user for the CPU, musl for the linker and libc, a shim for bionic's own.

Needs Debian's qemu-user-static. musl is Debian's arm64 package, fetched by apt into a folder of the test; PyPI's
whole ziglang links against it (of the pinned part only what the app's library takes is kept).
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
class Answer:
    """tokens: chosen greedily; text: theirs, UTF-8; logits: (tokens, vocabulary) float32, what each was chosen from."""

    tokens: list[int]
    text: bytes
    logits: NDArray[np.float32]


@dataclass(frozen=True)
class Phone:
    """root: where the arm64 linker lies; harness, hwcap: programs; shims: libraries in place of Android's own."""

    root: Path
    harness: Path
    hwcap: Path
    shims: Path

    def answer(self, cpu: str, edge: Path, llama: Path, gguf: Path, prompt: str, count: int) -> Answer:
        """Answer greedily on a CPU model of qemu with the app's library `edge` and llama.cpp's `llama`.

        Raises CalledProcessError with what was printed; its returncode is minus the signal that ended the program.
        """
        logits = self.harness.with_name("logits.bin")
        shims = f"LD_LIBRARY_PATH={self.shims}:{llama.parent}", f"LD_PRELOAD={self.shims / 'liblog.so'}"
        variables = [word for shim in shims for word in ("-E", shim)]
        printed = self._run(cpu, *variables, self.harness, edge, llama, gguf, prompt, count, logits)
        lines = [line.partition(" ") for line in printed.splitlines()]
        tokens = [int(token) for token, _, _ in lines]
        text = bytes.fromhex("".join(digits for _, _, digits in lines))
        return Answer(tokens, text, np.fromfile(logits, np.float32).reshape(len(tokens), -1))

    def capabilities(self, cpu: str) -> tuple[int, int]:
        """AT_HWCAP and AT_HWCAP2 of a CPU model."""
        first, second = self._run(cpu, self.hwcap).split()
        return int(first, 16), int(second, 16)

    def _run(self, cpu: str, *words: object) -> str:
        command = [str(QEMU), "-L", str(self.root), "-cpu", cpu, *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=True).stdout


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
    _run(*_ZIG, "-dynamic", HERE / "hwcap.c", "-o", output / "hwcap")
    return Phone(musl(output / "root"), output / "harness", output / "hwcap", shims)


def musl(root: Path) -> Path:
    """Debian's musl for arm64, unpacked."""
    lists = root / "lists"
    (lists / "partial").mkdir(parents=True)
    options = ["APT::Architecture=arm64", "APT::Architectures::=arm64", f"Dir::State::Lists={lists}"]
    apt = ["apt-get", "-qq", *(word for option in options for word in ("-o", option))]
    subprocess.run([*apt, "update"], check=True, cwd=root)
    subprocess.run([*apt, "download", "musl"], check=True, cwd=root)
    (package,) = root.glob("musl_*_arm64.deb")
    subprocess.run(["dpkg-deb", "-x", str(package), str(root)], check=True)
    return root


def _run(*command: str | Path) -> None:
    subprocess.run([str(word) for word in command], check=True)

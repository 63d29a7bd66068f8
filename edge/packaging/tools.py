"""The programs that build an Android package: Debian's packages, looked for before anything is built."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from converters.errors import MachineError, PackageError

FRAMEWORK = Path("/usr/share/android-framework-res/framework-res.apk")
PACKAGES = {
    "aapt": "aapt",
    "zipalign": "zipalign",
    "apksigner": "apksigner",
    "java": "openjdk-17-jdk-headless",
    "javac": "openjdk-17-jdk-headless",
    "keytool": "openjdk-17-jdk-headless",
}
"""The Debian package of each program."""
NEWEST_JDK = 19
"""The last one whose javac writes class files of Java 7, the newest that dx 1.11 reads."""


@dataclass(frozen=True)
class Tools:
    """Paths of the programs; `headers` is the JDK's folder with jni.h."""

    aapt: str
    zipalign: str
    apksigner: str
    java: str
    javac: str
    keytool: str
    headers: Path
    framework: Path


def find() -> Tools:
    """All tools. Raises PackageError that names every one that is missing, and the command that installs them."""
    found = {name: shutil.which(name) for name in PACKAGES}
    missing = {name: PACKAGES[name] for name, path in found.items() if path is None}
    if not FRAMEWORK.is_file():
        missing[FRAMEWORK.name] = "android-framework-res"
    headers = Path(found["javac"] or "/").resolve().parent.parent / "include"
    if found["javac"] and not (headers / "jni.h").is_file():
        missing["jni.h"] = PACKAGES["javac"]
    if missing:
        raise PackageError(
            f"an Android app cannot be built without {', '.join(missing)}",
            hint=f"apt-get install {' '.join(sorted({*missing.values()}))} (Debian; elsewhere: a Debian container)",
        )
    paths = {name: path for name, path in found.items() if path}
    version = re.search(r"javac (\d+)", run([paths["javac"], "-version"], "javac"))
    if version is None or int(version[1]) > NEWEST_JDK:
        raise PackageError(
            f"javac is of JDK {version[1] if version else '?'}, and dx reads no class file that it writes",
            hint=f"apt-get install {PACKAGES['javac']} (any JDK up to {NEWEST_JDK}), and put it first in PATH",
        )
    return Tools(**paths, headers=headers, framework=FRAMEWORK)


def run(
    command: Sequence[str | Path], what: str, *, cwd: Path | None = None, env: dict[str, str] | None = None
) -> str:
    """What a tool says on both streams, in English. MachineError with its last words when it fails."""
    environment = {**os.environ, "LC_ALL": "C", **(env or {})}
    try:
        done = subprocess.run(
            [str(word) for word in command],
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
    except OSError as error:
        raise MachineError(f"{what} cannot be started: {error.strerror}", hint="install it again") from error
    if done.returncode:
        lines = [line for line in done.stdout.splitlines() if line.strip()]
        telling = next(
            (line for line in lines if "error" in line.lower()),
            lines[-1] if lines else f"exit code {done.returncode}",
        )
        raise MachineError(
            f"{what} fails: {telling.strip()[:300]}",
            hint="EDGE_DEBUG=1 shows where; the app's sources are in edge/apps/android",
        )
    return done.stdout

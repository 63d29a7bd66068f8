"""Java sources become classes.dex: the JDK's javac, then dx, which reads class files of Java 7 at most."""

from __future__ import annotations

from pathlib import Path

from converters.errors import PackageError
from edge.packaging.tools import Tools, run

DX = Path("package/framework/build-tools/android-metadata-generator.jar")
"""In NativeScript's npm package: a jar that holds all of dx 1.11."""
_JAVA_7 = ("--release", "7", "-Xlint:-options", "-encoding", "UTF-8", "-g:none", "-proc:none")


def build(tools: Tools, dx: Path, stubs: Path, sources: tuple[Path, ...], work: Path) -> Path:
    """classes.dex of all Java files below the folders `sources`, in `work`.

    `stubs`: signatures of the Android classes that they use, compiled against and left out. `-g:none` leaves out what
    differs between folders. Raises PackageError where a folder has no source, MachineError with javac's first error.
    """
    folders = {"stubs": (stubs,), "classes": sources}
    for name, roots in folders.items():
        files = sorted(file for root in roots for file in root.rglob("*.java"))
        if not files:
            raise PackageError(
                f"{roots[0]} holds no Java source", hint="install edge again: its apps are missing"
            )
        (work / name).mkdir()
        listing = work / f"{name}.txt"
        listing.write_text("".join(f'"{file}"\n' for file in files), encoding="utf-8")
        path = ("-cp", str(work / "stubs")) if name == "classes" else ()
        run([tools.javac, *_JAVA_7, *path, "-d", str(work / name), f"@{listing}"], "javac")
    dex = work / "classes.dex"
    command = [tools.java, "-Xmx512m", "-cp", str(dx / DX), "com.android.dx.command.Main", "--dex"]
    run([*command, f"--output={dex}", str(work / "classes")], "dx")
    return dex

"""The app's own native library, built for a phone without Google's NDK: zig is the compiler and linker.

The library says that it needs libc.so and libdl.so, as bionic names them. Those are not here, and nothing of them is
needed to link but their names: stubs with empty functions stand for them.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from converters.errors import UnsupportedError
from edge.packaging.tools import run

NAME = "libedge_llama.so"
SOURCES = ("model.c", "vocabulary.c", "generate.c")
STUBS = {
    "c": ("malloc", "calloc", "free", "memcpy", "memset", "strlen"),
    "dl": ("dlopen", "dlsym"),
}
"""What the sources call of each of bionic's libraries."""
NATIVE = Path(__file__).parents[1] / "apps" / "android" / "native"
_TARGET = ("-target", "aarch64-linux-musl", "-mcpu=generic")
_PAGE = 16384
"""Android 15's largest page size: a segment aligned to less does not load there."""


def build(output_dir: Path, llama_rn: Path, zig: Path) -> Path:
    """Compile libedge_llama.so for arm64 into `output_dir`; the same bytes each time.

    llama_rn: the unpacked npm package llama.rn, whose cpp/llama.h declares what its libraries export. zig: the program
    in PyPI's ziglang. Raises UnsupportedError without a JDK, MachineError when the compiler refuses.
    """
    library = output_dir / NAME
    with tempfile.TemporaryDirectory() as work:
        stubs = [_stub(zig, Path(work), name, functions) for name, functions in STUBS.items()]
        objects = [_object(zig, Path(work), source, (llama_rn / "cpp", *jni_headers())) for source in SOURCES]
        _zig(
            zig,
            "-shared", "-nostdlib", "-s", f"-Wl,-soname,{NAME}", f"-Wl,-z,max-page-size={_PAGE}",
            "-Wl,--no-undefined", "-Wl,--build-id=none", *map(str, objects), *map(str, stubs), "-o", str(library),
        )  # fmt: skip
    return library


def jni_headers() -> tuple[Path, Path]:
    """The folders of the JDK's jni.h and jni_md.h. Raises UnsupportedError without a JDK."""
    javac = shutil.which("javac")
    if javac is None:
        raise UnsupportedError(
            "building the app needs a JDK: there is no javac", hint="apt-get install openjdk-17-jdk-headless"
        )
    include = Path(javac).resolve().parents[1] / "include"
    return include, include / "linux"


def _object(zig: Path, work: Path, source: str, include: tuple[Path, ...]) -> Path:
    result = work / f"{source}.o"
    _zig(
        zig, "-c", "-fPIC", "-O2", "-std=c11", "-Wall", "-Wextra", "-Werror", "-fno-builtin", "-fno-stack-protector",
        "-fno-sanitize=all", "-fvisibility=hidden", "-g0", *(f"-I{folder}" for folder in include),
        str(NATIVE / source), "-o", str(result),
    )  # fmt: skip
    return result


def _stub(zig: Path, work: Path, name: str, functions: tuple[str, ...]) -> Path:
    source, library = work / f"{name}.c", work / f"lib{name}.so"
    source.write_text("".join(f"void {function}(void) {{}}\n" for function in functions))
    _zig(
        zig, "-shared", "-nostdlib", "-fno-builtin", "-w", f"-Wl,-soname,lib{name}.so", str(source), "-o", str(library)
    )  # fmt: skip
    return library


def _zig(zig: Path, *arguments: str) -> None:
    """zig's own caches go where the output goes: another version's would be of no use, and a home may be read-only."""
    output = Path(arguments[-1])
    caches = dict.fromkeys(("ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR"), str(output.parent / ".zig"))
    run([zig, "cc", *_TARGET, *arguments], "zig", env=caches)

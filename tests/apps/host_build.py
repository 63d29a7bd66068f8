"""The app's Java and C, built for this computer, against the llama.cpp that llama-cpp-python brings.

That library is another version than the phone's: two structs that llama.h passes by value are laid out in another
way. So the header is the phone's with those two taken from llama-cpp-python's own declarations.
"""

from __future__ import annotations

import ctypes
import re
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import llama_cpp

from edge.packaging import native

ROOT = Path(__file__).parents[2]
ANDROID = ROOT / "apps" / "android"
LIBRARIES = Path(llama_cpp.__file__).parent / "lib"
_STRUCTS = ("llama_model_params", "llama_context_params")
_TYPES: dict[Any, str] = {
    ctypes.c_int32: "int32_t",
    ctypes.c_uint32: "uint32_t",
    ctypes.c_size_t: "size_t",
    ctypes.c_float: "float",
    ctypes.c_bool: "bool",
}
_CALLBACKS = {
    "progress_callback": "llama_progress_callback",
    "abort_callback": "lm_ggml_abort_callback",
}


@dataclass(frozen=True)
class Host:
    """classes: a class path; libraries: folder of libllama.so; library_path: folder of libedge_llama.so.

    environment: NAME=VALUE for the process.
    """

    classes: Path
    libraries: Path
    library_path: Path
    environment: tuple[str, ...] = ()

    def java(self, main: str, *arguments: str | Path) -> list[str]:
        options = ("-Xcheck:jni", f"-Djava.library.path={self.library_path}", "-cp", str(self.classes))
        return ["env", *self.environment, "java", *options, main, *map(str, arguments)]


def build(output: Path, llama_rn: Path) -> Host:
    """Compile C and Java into `output`. llama_rn: the unpacked npm package."""
    headers = output / "include"
    headers.mkdir()
    for header in (llama_rn / "cpp").glob("ggml*.h"):
        (headers / header.name).write_bytes(header.read_bytes())
    (headers / "llama.h").write_text(_header((llama_rn / "cpp" / "llama.h").read_text()))
    _compile(headers, output)
    classes = output / "classes"
    folders = (ANDROID / "java" / "core", ANDROID / "host", ROOT / "tests" / "apps" / "java")
    files = [file for folder in folders for file in sorted(folder.rglob("*.java"))]
    lint = ["-Xlint:all,-options", "-Werror"]
    subprocess.run(["javac", *lint, "--release", "8", "-d", str(classes), *map(str, files)], check=True)
    return Host(classes, LIBRARIES, output)


def sanitized(host: Host, output: Path) -> Host:
    """`host` with its C code under AddressSanitizer and UndefinedBehaviorSanitizer: a finding ends the process.

    The JVM itself uses SIGSEGV. Leaks are not looked for: LeakSanitizer stops the process as a debugger does, which
    containers forbid.
    """
    _compile(
        host.library_path / "include", output, "-fsanitize=address,undefined", "-fno-sanitize-recover=all"
    )
    runtimes = (f"{name}.so" for name in ("libasan", "libubsan"))
    paths = [
        subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout
        for name in runtimes
    ]
    preload = f"LD_PRELOAD={' '.join(path.strip() for path in paths)}"
    options = "ASAN_OPTIONS=handle_segv=0:detect_leaks=0:allocator_may_return_null=1"
    return replace(host, library_path=output, environment=(preload, options))


def _compile(headers: Path, output: Path, *flags: str) -> None:
    include = [f"-I{folder}" for folder in (headers, *native.jni_headers())]
    sources = [str(ANDROID / "native" / source) for source in native.SOURCES]
    command = ["gcc", "-O1", "-g", "-shared", "-fPIC", "-std=gnu11", "-Wall", "-Wextra", "-Werror", *flags]
    subprocess.run([*command, *include, *sources, "-ldl", "-o", output / "libedge_llama.so"], check=True)


def _header(text: str) -> str:
    for name in _STRUCTS:
        fields = getattr(llama_cpp, name)._fields_
        body = "".join(f"        {_declared(field, kind)};\n" for field, kind in fields)
        text, count = re.subn(
            rf"    struct {name} {{.*?\n    }};",
            f"    struct {name} {{\n{body}    }};",
            text,
            flags=re.DOTALL,
        )
        assert count == 1, name
    return text


def _declared(field: str, kind: Any) -> str:
    return f"{_CALLBACKS.get(field) or _TYPES.get(kind, 'void *')} {field}"

"""What Qualcomm's own reader (libQnnSystem) says of a context binary: its graphs and its SoC. Nothing is loaded.

In a process of its own, `python -m edge.npu.system FILE`: native code that is given a damaged file. The structures
are those of QAIRT 2.51 (QnnSystemContext.h: QnnSystemContext_BinaryInfo_t and QnnSystemContext_GraphInfo_t, both of
version 3), which onnxruntime-qnn carries; another version is refused rather than misread.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters.errors import BundleError
from edge.npu import plugin

_CREATE, _GET_INFO = 32, 40
"""Offsets in QnnSystemInterface_t: the first two functions of the implementation."""
_VERSION = 3
_GRAPH_COUNT, _GRAPHS, _SOC_MODEL = 96, 104, 136
_GRAPH_SIZE, _NAME, _INPUTS, _OUTPUTS = 88, 8, 16, 32


@dataclass(frozen=True)
class Graph:
    """`inputs`, `outputs`: how many."""

    name: str
    inputs: int
    outputs: int


@dataclass(frozen=True)
class Contents:
    """`soc_model`: as onnxruntime's QNN provider numbers it."""

    soc_model: int
    graphs: tuple[Graph, ...]


def read_contents(file: Path) -> Contents:
    """Of a binary for one SoC, with shared weights or without. BundleError when the reader refuses it; an archive for
    several SoCs is refused too."""
    plugin.require()
    done = subprocess.run(
        [sys.executable, "-m", __name__, str(file)], capture_output=True, text=True, check=False
    )
    lines = done.stdout.splitlines()
    answer: dict[str, Any] = json.loads(lines[-1]) if done.returncode == 0 and lines else {}
    if "graphs" not in answer:
        why = answer.get("cause", f"it ended with code {done.returncode}")
        raise BundleError(
            f"{file}: Qualcomm's reader finds no context binary for one SoC in it: {why}",
            hint="convert again, or copy the bundle again from where it came",
        )
    return Contents(answer["soc_model"], tuple(Graph(*graph) for graph in answer["graphs"]))


def _read(file: Path) -> dict[str, Any]:
    create, get_info = _functions()
    handle, found, size = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_uint64()
    try:
        content = file.read_bytes()
    except OSError as error:
        return {"cause": str(error.strerror)}
    create(ctypes.byref(handle))
    buffer = ctypes.create_string_buffer(content, len(content))
    code = get_info(handle, buffer, len(content), ctypes.byref(found), ctypes.byref(size))
    if code or not found.value:
        return {"cause": f"QnnSystemContext error {code & 0xFFFF}"}
    info = found.value
    first = _pointer(info + _GRAPHS)
    if _number(info) != _VERSION or (first and _number(first) != _VERSION):
        return {"cause": f"its description has version {_number(info)}, not {_VERSION}"}
    starts = (first + i * _GRAPH_SIZE for i in range(_number(info + _GRAPH_COUNT)))
    graphs = [
        (ctypes.string_at(_pointer(g + _NAME)).decode(), _number(g + _INPUTS), _number(g + _OUTPUTS))
        for g in starts
    ]
    return {"soc_model": _number(info + _SOC_MODEL), "graphs": graphs}


def _functions() -> tuple[Any, Any]:
    import onnxruntime_qnn

    library = ctypes.CDLL(str(Path(onnxruntime_qnn.LIB_DIR_FULL_PATH) / "libQnnSystem.so"))
    providers, count = ctypes.POINTER(ctypes.c_void_p)(), ctypes.c_uint32()
    library.QnnSystemInterface_getProviders(ctypes.byref(providers), ctypes.byref(count))
    base = providers[0] or 0
    plain = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p)
    reading = ctypes.CFUNCTYPE(
        ctypes.c_uint64,
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_uint64,
        ctypes.c_void_p,
        ctypes.c_void_p,
    )
    return plain(_pointer(base + _CREATE)), reading(_pointer(base + _GET_INFO))


def _number(address: int) -> int:
    return ctypes.c_uint32.from_address(address).value


def _pointer(address: int) -> int:
    return ctypes.c_uint64.from_address(address).value


if __name__ == "__main__":
    print(json.dumps(_read(Path(sys.argv[1]))))

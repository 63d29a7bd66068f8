"""Context binaries of more than one graph or for more than one SoC.

- shared: both stages of a pipeline in one binary that holds their weights once. The stages' graphs point at it.
- for several SoCs: one archive with a binary for each.

Both are made here and looked at (`edge.npu.binary`, `edge.npu.system`), never loaded: the emulator ends the process
when it is given the one, and refuses the other. A phone takes both (onnxruntime, QNN Execution Provider,
ep.share_ep_contexts; QAIRT, multi-SoC context binaries); nobody has seen these on one.
"""

from __future__ import annotations

import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters.errors import BundleError
from edge.machine import peak_memory
from edge.npu import plugin
from edge.npu.binary import binaries_of
from edge.npu.compiler import answer_with, ask, open_session
from edge.npu.socs import Soc, get_socs


@dataclass(frozen=True)
class Made:
    """`binary`: the file. `seconds` without start-up, `peak_bytes` of the compiler's process."""

    binary: Path
    seconds: float
    peak_bytes: int


def compile_shared(graphs: Sequence[Path], soc: Soc, folder: Path) -> Made:
    """Compile `graphs` for `soc` into one context binary in `folder`, and beside it a graph of each one's name.

    Raises as `edge.npu.compiler.compile_graph` does, for a node on the CPU too.
    """
    return _make(graphs, (soc,), [folder / graph.name for graph in graphs])


def compile_for_socs(graph: Path, socs: Sequence[Soc], binary: Path) -> Made:
    """Compile `graph` for all `socs` into one archive, beside `binary` (an .onnx path), which points at it.

    Raises as `edge.npu.compiler.compile_graph` does, for a node on the CPU too.
    """
    return _make([graph], socs, [binary])


def archived(archive: Path) -> Mapping[str, int]:
    """{file: bytes} in an archive for several SoCs: `htp.cache.NAME.0` for each, weights that all share apart.

    BundleError when it is none.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            return {entry.filename: entry.file_size for entry in opened.infolist()}
    except (OSError, zipfile.BadZipFile) as error:
        raise BundleError(
            f"{archive} is no archive of context binaries: {error}", hint="convert again"
        ) from None


def _make(graphs: Sequence[Path], socs: Sequence[Soc], binaries: Sequence[Path]) -> Made:
    plugin.require()
    asked = {
        "graph": str(graphs[0]),
        "graphs": [str(graph.absolute()) for graph in graphs],
        "soc": ", ".join(soc.name for soc in socs),
        "socs": [soc.name for soc in socs],
        "binaries": [str(binary.absolute()) for binary in binaries],
    }
    answer = ask(__name__, asked, graphs[0], binaries)
    return Made(binaries_of(binaries[-1])[0], answer["seconds"], answer["peak_bytes"])


def _main(asked: dict[str, Any]) -> dict[str, Any]:
    import onnxruntime

    plugin.register("onnxruntime")
    socs = get_socs(asked["socs"])
    began = time.perf_counter()
    with plugin.graph_options(socs[0]) as options:
        options = {**options, **_of_all(socs)}
        sessions = []  # the first one's weights live until the last one is made
        for index, (graph, binary) in enumerate(zip(asked["graphs"], asked["binaries"], strict=True)):
            entries = _sharing(index, len(asked["graphs"]))
            sessions.append(
                open_session(onnxruntime, Path(graph), options, binary, allow_cpu=False, more=entries)
            )
    return {"seconds": time.perf_counter() - began, "peak_bytes": peak_memory()}


def _of_all(socs: Sequence[Soc]) -> Mapping[str, str]:
    return {
        "soc_model": ",".join(str(soc.soc_model) for soc in socs),
        "htp_arch": ",".join(str(soc.htp_arch) for soc in socs),
    }


def _sharing(index: int, count: int) -> Mapping[str, str]:
    if count == 1:
        return {}
    last = {"ep.stop_share_ep_contexts": "1"} if index == count - 1 else {}
    return {"ep.share_ep_contexts": "1", **last}


if __name__ == "__main__":
    answer_with(_main)

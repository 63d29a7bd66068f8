"""Compile one graph of a pipeline for one SoC, in a process of its own: `python -m edge.npu.compiler` reads what to do
as JSON from stdin and answers in JSON.

Qualcomm's compiler is native code that ends the process when it meets what it cannot take, keeps its memory, and may
leave a binary behind when it fails.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters.errors import EdgeError, UnsupportedError
from edge.machine import peak_memory
from edge.npu import plugin
from edge.npu.socs import Soc, get_socs
from edge.runtimes.isolated import die_with, ended


@dataclass(frozen=True)
class Placed:
    """A node of a graph and the device that runs it, from the runtime's own record."""

    node: str
    operator: str
    device: str


@dataclass(frozen=True)
class Compiled:
    """What compiling took; `seconds` without start-up. `peak_bytes`: of the compiler's process."""

    nodes: tuple[Placed, ...]
    seconds: float
    peak_bytes: int

    def elsewhere(self) -> tuple[Placed, ...]:
        """Nodes that are not on the NPU."""
        return tuple(node for node in self.nodes if node.device != plugin.PROVIDER)


def compile_graph(graph: Path, soc: Soc, binary: Path | None, *, allow_cpu: bool = False) -> Compiled:
    """Compile `graph`; with `binary` (an .onnx path) write its context binary there, and beside it as NAME_qnn.bin.

    Unless `allow_cpu`, no binary is made of a graph of which a node would run on the CPU (`elsewhere`). Raises
    UnsupportedError when the compiler refuses the graph or dies of it, MachineError when it was killed; a binary that
    it left is removed.
    """
    plugin.require()
    asked = {
        "graph": str(graph.absolute()),
        "soc": soc.name,
        "binary": str(binary.absolute()) if binary else None,
        "allow_cpu": allow_cpu,
    }
    answer = ask(__name__, asked, graph, [binary] if binary else [])
    nodes = tuple(Placed(*node) for node in answer["nodes"])
    compiled = Compiled(nodes, answer["seconds"], answer["peak_bytes"])
    if binary and compiled.elsewhere() and not allow_cpu:
        _remove(binary)  # the runtime wrote it before it refused to let nodes fall back
    return compiled


def ask(module: str, asked: Mapping[str, Any], graph: Path, binaries: Sequence[Path]) -> dict[str, Any]:
    """What `python -m module` answers to `asked`. Raises as `compile_graph` does; what it left of `binaries` is then
    removed."""
    sent = json.dumps({**asked, "parent": os.getpid()})
    done = subprocess.run(
        [sys.executable, "-m", module], input=sent, capture_output=True, text=True, check=False
    )
    lines = done.stdout.splitlines()
    answer: dict[str, Any] = json.loads(lines[-1]) if done.returncode == 0 and lines else {}
    if answer and "cause" not in answer:
        return answer
    for binary in binaries:
        _remove(binary)
    if "cause" in answer:
        raise UnsupportedError(answer["cause"], hint=answer["hint"])
    raise ended(graph, done.returncode, done.stderr)


def _remove(binary: Path) -> None:
    for left in binary.parent.glob(f"{binary.stem}*"):
        left.unlink()


def _compile(graph: Path, soc: Soc, binary: str | None, allow_cpu: bool) -> dict[str, Any]:
    import onnxruntime

    plugin.register("onnxruntime")
    with plugin.graph_options(soc) as options:
        began = time.perf_counter()
        try:
            session = open_session(onnxruntime, graph, options, binary, allow_cpu=allow_cpu)
        except Exception as error:
            if "fallback" not in str(error):
                raise
            # It says that something fell back, not what: once more, only to learn where every node is.
            session = open_session(onnxruntime, graph, options, None, allow_cpu=True)
        seconds = time.perf_counter() - began
    nodes = [
        (node.name, node.op_type, part.ep_name)
        for part in session.get_provider_graph_assignment_info()
        for node in part.get_nodes()
    ]
    return {"nodes": nodes, "seconds": seconds, "peak_bytes": peak_memory()}


def open_session(
    onnxruntime: Any,
    graph: Path,
    options: Mapping[str, str],
    binary: str | None,
    *,
    allow_cpu: bool,
    more: Mapping[str, str] | None = None,
) -> Any:
    """A session with `options` of the provider; with `binary` it writes a context binary. `more`: session entries."""
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    settings.add_provider_for_devices([plugin.device(onnxruntime)], dict(options))
    entries = {
        **(more or {}),
        "session.record_ep_graph_assignment_info": "1",
        "session.disable_cpu_ep_fallback": str(int(not allow_cpu)),
    }
    if binary:
        entries |= {
            "ep.context_enable": "1",
            "ep.context_embed_mode": "0",
            "ep.context_file_path": binary,
        }
    for key, value in entries.items():
        settings.add_session_config_entry(key, value)
    # onnxruntime names the compiled part by a hash of the graph's path as it is given, and the name goes into the
    # binary: from the graph's own folder it is always the same.
    os.chdir(graph.parent)
    return onnxruntime.InferenceSession(graph.name, settings)


def _main(asked: dict[str, Any]) -> dict[str, Any]:
    (soc,) = get_socs([asked["soc"]])
    return _compile(Path(asked["graph"]), soc, asked["binary"], asked["allow_cpu"])


def answer_with(compile_it: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """The child's side of `ask`."""
    asked = json.load(sys.stdin)
    die_with(asked.pop("parent"))
    try:
        answer = compile_it(asked)
    except EdgeError as error:
        answer = {"cause": error.cause, "hint": error.hint}
    except Exception as error:  # onnxruntime's exceptions share no base but this
        first = str(error).splitlines()[0]
        answer = {
            "cause": f"{Path(asked['graph']).name}: the compiler for {asked['soc']} refuses it: {first}",
            "hint": "edge doctor",
        }
    print(json.dumps(answer))


if __name__ == "__main__":
    answer_with(_main)

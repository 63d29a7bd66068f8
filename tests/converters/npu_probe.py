"""Small graphs on the emulated NPU, in a process of its own: `python -m tests.converters.npu_probe CASE [key=value]`.

Prints one line of JSON: `cosine` against numpy, `devices` of the nodes, `qnn` the compiler's own operators with the
type of their first input, or `error`. The provider's options are as `edge.npu.plugin` gives them unless a key=value
changes one; an empty value takes it away.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from edge.npu import plugin
from edge.npu.socs import get_socs
from tests.converters.npu_probe_graphs import CASES

_DUMPED_TYPES = {0x216: "float16", 0x232: "float32", 0x416: "u16"}
"""QnnTypes.h, Qnn_DataType_t."""


def _probe(case: str, changes: dict[str, str], work: Path) -> dict[str, Any]:
    name, _, argument = case.partition(":")
    model, feeds, expected = CASES[name](argument)
    onnx.save(model, work / "probe.onnx")
    plugin.register("onnxruntime")
    (soc,) = get_socs(["SM8650"])
    settings = ort.SessionOptions()
    settings.log_severity_level = 4
    entries = {"session.record_ep_graph_assignment_info": "1"}
    entries |= {key: value for key, value in changes.items() if "." in key}
    for key, value in entries.items():
        settings.add_session_config_entry(key, value.replace("WORK", str(work)))
    with plugin.graph_options(soc) as given:
        options = {**given, "dump_json_qnn_graph": "1", "json_qnn_graph_dir": str(work)}
        options |= {key: value for key, value in changes.items() if "." not in key}
        options = {key: value for key, value in options.items() if value}
        settings.add_provider_for_devices([plugin.device(ort)], options)
        answer: dict[str, Any] = {}
        try:
            session = ort.InferenceSession(str(work / "probe.onnx"), settings)
        except Exception as error:
            answer["error"] = str(error).splitlines()[0]
        else:
            answer["devices"] = {
                node.name: part.ep_name
                for part in session.get_provider_graph_assignment_info()
                for node in part.get_nodes()
            }
            found = np.asarray(session.run(None, feeds)[0], np.float64)
            if expected is not None:
                norms = np.linalg.norm(found) * np.linalg.norm(expected)
                answer["cosine"] = float(np.vdot(found, expected) / norms)
    answer["qnn"] = _dumped(work)
    answer["files"] = sorted(file.name for file in work.iterdir())
    return answer


def _dumped(work: Path) -> dict[str, str]:
    types = {}
    for file in work.glob("*_[0-9].json"):
        graph = json.loads(file.read_text())["graph"]
        for node in graph["nodes"].values():
            kind = graph["tensors"][node["input_names"][0]]["data_type"]
            types[node["type"]] = _DUMPED_TYPES.get(kind, hex(kind))
    return types


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        print(json.dumps(_probe(sys.argv[1], dict(a.split("=", 1) for a in sys.argv[2:]), Path(directory))))

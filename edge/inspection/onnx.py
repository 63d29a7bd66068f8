"""An ONNX graph or a folder for onnxruntime-genai: operators, inputs, initializers, external files.

Field numbers are those of onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from converters.checkpoint_files import read_json
from converters.errors import CheckpointError
from edge.inspection.protobuf import MAX_DIMENSIONS, Field, Wire

_DTYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 8: "string",
    9: "bool", 10: "float16", 11: "float64", 12: "uint32", 13: "uint64", 16: "bfloat16", 21: "uint4", 22: "int4",
}  # fmt: skip
_ITEM_BITS = {
    "float32": 32, "uint8": 8, "int8": 8, "uint16": 16, "int16": 16, "int32": 32, "int64": 64, "bool": 8,
    "float16": 16, "float64": 64, "uint32": 32, "uint64": 64, "bfloat16": 16, "uint4": 4, "int4": 4,
}  # fmt: skip
_MAX_NESTING = 8


@dataclass
class _Graph:
    """What a walk has gathered so far; branches of an If or Loop count with the graph that holds them."""

    operators: Counter[str] = field(default_factory=Counter)
    inputs: list[dict[str, Any]] = field(default_factory=list)
    outputs: list[dict[str, Any]] = field(default_factory=list)
    initializers: dict[str, dict[str, int]] = field(default_factory=dict)
    external: Counter[str] = field(default_factory=Counter)
    names: set[str] = field(default_factory=set)


def inspect_folder(directory: Path) -> dict[str, Any]:
    """Facts of genai_config.json and of every graph in the folder."""
    config = read_json(directory.resolve(), "genai_config.json")
    model, search = _table(config, "model"), _table(config, "search")
    decoder = _table(model, "decoder")
    graphs = [inspect_graph(file) for file in sorted(directory.glob("*.onnx"))]
    return {
        "kind": "onnx_folder",
        "path": str(directory),
        "model_type": model.get("type"),
        "context_length": model.get("context_length"),
        "max_length": search.get("max_length"),
        "vocab_size": model.get("vocab_size"),
        "layers": decoder.get("num_hidden_layers"),
        "heads": decoder.get("num_attention_heads"),
        "kv_heads": decoder.get("num_key_value_heads"),
        "head_dim": decoder.get("head_size"),
        "eos_token_id": model.get("eos_token_id"),
        "bytes": sum(f.stat().st_size for f in directory.iterdir() if f.is_file()),
        "graphs": graphs,
    }


def inspect_graph(path: Path) -> dict[str, Any]:
    """Facts of one .onnx file. Raises CheckpointError when it is not well-formed or leaves its directory."""
    graph = _Graph()
    opsets: dict[str, int | None] = {}
    facts: dict[str, Any] = {"ir_version": None, "producer": None}
    with Wire(path) as wire:
        seen = False
        for part in wire.fields():
            if part.number == 1:
                facts["ir_version"] = part.value
            elif part.number == 2:
                facts["producer"] = wire.text(part)
            elif part.number == 8:
                _add_opset(wire, part, opsets)
            elif part.number == 7:
                seen = True
                _walk_graph(wire, part, graph, 0)
    if not seen:
        raise CheckpointError(f"{path}: holds no ONNX graph", hint="take another copy of the file")
    return {
        "kind": "onnx_graph",
        "path": str(path),
        **facts,
        "opsets": opsets,
        "bytes": path.stat().st_size,
        "operators": dict(sorted(graph.operators.items())),
        "inputs": [i for i in graph.inputs if i["name"] not in graph.names],
        "outputs": graph.outputs,
        "initializers": dict(sorted(graph.initializers.items())),
        "external_files": [_external(path, name, end) for name, end in sorted(graph.external.items())],
    }


def _external(path: Path, name: str, end: int) -> dict[str, Any]:
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or "\\" in name:
        raise CheckpointError(
            f"{path}: an initializer points outside of its folder, to {name!r}",
            hint="do not run this model; take it from a source that you trust",
        )
    file = path.parent / name
    size = file.stat().st_size if file.is_file() else None
    return {"file": name, "bytes": size, "bytes_used": end, "complete": size is not None and size >= end}


def _walk_graph(wire: Wire, message: Field, graph: _Graph, depth: int) -> None:
    if depth > _MAX_NESTING:
        raise wire.bad(f"branches nested deeper than {_MAX_NESTING}")
    for part in wire.fields(message.start, message.stop):
        if part.number == 1:
            _walk_node(wire, part, graph, depth)
        elif part.number == 5:
            _walk_initializer(wire, part, graph)
        elif part.number in (11, 12) and depth == 0:
            (graph.inputs if part.number == 11 else graph.outputs).append(_value_info(wire, part))


def _walk_node(wire: Wire, message: Field, graph: _Graph, depth: int) -> None:
    domain, operator = "", ""
    for part in wire.fields(message.start, message.stop):
        if part.number == 4:
            operator = wire.text(part)
        elif part.number == 7:
            domain = wire.text(part)
        elif part.number == 5:
            for inner in wire.fields(part.start, part.stop):
                if inner.number in (6, 11):
                    _walk_graph(wire, inner, graph, depth + 1)
    graph.operators[f"{domain}.{operator}" if domain and domain != "ai.onnx" else operator] += 1


def _walk_initializer(wire: Wire, message: Field, graph: _Graph) -> None:
    dims: list[int] = []
    dtype, external = "unknown", {}
    for part in wire.fields(message.start, message.stop):
        if part.number == 1:
            dims += wire.numbers(part)
            if len(dims) > MAX_DIMENSIONS:
                raise wire.bad(f"more than {MAX_DIMENSIONS} dimensions")
        elif part.number == 2:
            dtype = _dtype(part)
        elif part.number == 8:
            graph.names.add(wire.text(part))
        elif part.number == 13:
            pair = {f.number: wire.text(f) for f in wire.fields(part.start, part.stop)}
            external[pair.get(1, "")] = pair.get(2, "")
    nbytes = math.prod(dims) * _ITEM_BITS.get(dtype, 0) // 8
    entry = graph.initializers.setdefault(dtype, {"tensors": 0, "bytes": 0})
    entry["tensors"] += 1
    entry["bytes"] += nbytes
    if "location" in external:
        offset = external.get("offset", "0")
        length = external.get("length", str(nbytes))
        if not (offset.isdecimal() and length.isdecimal()) or len(offset + length) > 40:
            raise wire.bad(f"an external offset {offset[:40]!r}, length {length[:40]!r}")
        location = external["location"]
        graph.external[location] = max(graph.external[location], int(offset) + int(length))


def _value_info(wire: Wire, message: Field) -> dict[str, Any]:
    """ValueInfoProto: name, and TypeProto.Tensor's element type and shape (a name for a free dimension)."""
    name, dtype, shape = "", "unknown", []
    for part in wire.fields(message.start, message.stop):
        if part.number == 1:
            name = wire.text(part)
        elif part.number == 2:
            for tensor in wire.fields(part.start, part.stop):
                if tensor.number != 1:
                    continue
                for item in wire.fields(tensor.start, tensor.stop):
                    if item.number == 1:
                        dtype = _dtype(item)
                    elif item.number == 2:
                        shape = [_dimension(wire, d) for d in wire.fields(item.start, item.stop)]
    return {"name": name, "dtype": dtype, "shape": shape}


def _dimension(wire: Wire, message: Field) -> int | str | None:
    for part in wire.fields(message.start, message.stop):
        if part.number == 1:
            return part.value
        if part.number == 2:
            return wire.text(part)
    return None


def _dtype(part: Field) -> str:
    return _DTYPES.get(part.value or 0, f"type {part.value}")


def _add_opset(wire: Wire, message: Field, opsets: dict[str, int | None]) -> None:
    domain, version = "", None
    for part in wire.fields(message.start, message.stop):
        if part.number == 1:
            domain = wire.text(part)
        elif part.number == 2:
            version = part.value
    opsets[domain or "ai.onnx"] = version


def _table(config: dict[str, Any], key: str) -> dict[str, Any]:
    value = config.get(key)
    return value if isinstance(value, dict) else {}

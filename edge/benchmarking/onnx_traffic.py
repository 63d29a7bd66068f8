"""What a token reads of an ONNX folder for onnxruntime-genai."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # no stubs in its wheel

from converters.checkpoint_files import read_json
from converters.errors import UnsupportedError
from edge.benchmarking.traffic import Traffic

_LOOKED_UP = {
    "Gather": (0,),
    "GatherBlockQuantized": (0, 2, 3),
    "GroupQueryAttention": (7, 8),
    "RotaryEmbedding": (1, 2, 3),
    "Identity": (0,),
}
"""Inputs of which an operator reads some rows. Identity hands rotary tables out of the branches of an If."""
_EXPERTS = {"QMoE", "MoE"}


def onnx_traffic(folder: Path) -> Traffic:
    """Raises CheckpointError (no such config), UnsupportedError (no decoder graph, or one that cannot be read)."""
    file = folder / _decoder_file(folder)
    try:
        graph = onnx.load(str(file), load_external_data=False).graph
    except (OSError, DecodeError) as error:
        raise UnsupportedError(
            f"{file}: not a readable ONNX graph ({error})", hint="edge verify BUNDLE"
        ) from None
    weights = {t.name: t for g in _graphs(graph) for t in g.initializer}
    read: dict[tuple[str, str], float] = {}
    windows = []
    for node in (n for g in _graphs(graph) for n in g.node):
        attributes = {a.name: a for a in node.attribute}
        if "local_window_size" in attributes:
            windows.append(attributes["local_window_size"].i)
        for index, name in enumerate(node.input):
            if name in weights:
                place = _place(weights[name])
                read[place] = max(read.get(place, 0.0), _read_by(node, index, weights[name]))
    files = {file} | {folder / place for place, _ in read if place}
    kv, kept = _carried(graph)
    return Traffic(
        weights=round(sum(read.values())) + kept,
        kv=kv,
        window=max(windows) if windows and min(windows) > 0 else None,
        file_bytes=sum(f.stat().st_size for f in files if f.is_file()),
    )


def _decoder_file(folder: Path) -> str:
    config = read_json(folder.resolve(), "genai_config.json")
    try:
        return str(config["model"]["decoder"]["filename"])
    except (KeyError, TypeError):
        raise UnsupportedError(
            f"{folder / 'genai_config.json'} names no decoder graph", hint=f"edge inspect {folder}"
        ) from None


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and the branches in it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)


def _place(tensor: onnx.TensorProto) -> tuple[str, str]:
    """Where a tensor's bytes are: two views of one place (a tied embedding) are read once."""
    where = {entry.key: entry.value for entry in tensor.external_data}
    return (where["location"], where.get("offset", "0")) if "location" in where else ("", tensor.name)


def _read_by(node: onnx.NodeProto, index: int, tensor: onnx.TensorProto) -> float:
    """Bytes of `tensor`, input `index` of `node`, that one token reads."""
    nbytes = _nbytes(tensor.data_type, math.prod(tensor.dims))
    if index in _LOOKED_UP.get(node.op_type, ()):
        return nbytes / max(1, int(tensor.dims[0])) if tensor.dims else nbytes
    if node.op_type == "Cast":  # of a weight: onnxruntime does it once, while loading, and reads the result
        kind = next(a.i for a in node.attribute if a.name == "to")
        return _nbytes(kind, math.prod(tensor.dims))
    if node.op_type in _EXPERTS and len(tensor.dims) > 1:
        chosen = next((a.i for a in node.attribute if a.name == "k"), 1)
        return nbytes * min(1.0, float(chosen) / int(tensor.dims[0]))
    return nbytes


def _nbytes(kind: int, count: int) -> float:
    if kind in (onnx.TensorProto.INT4, onnx.TensorProto.UINT4):
        return count / 2
    return float(count * onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize)


def _carried(graph: onnx.GraphProto) -> tuple[int, int]:
    """(bytes of a position of the caches, bytes that do not grow with the text): states, and caches that hold a window
    only, counted as full. A cache that several layers read counts for each of them."""
    values = {value.name: value for value in (*graph.input, *graph.output)}
    past = [value for value in graph.input if value.name.startswith("past")]
    states = [value for value in past if value.name.endswith("_state")]
    if not states:
        return sum(map(_cache_bytes, past)), 0
    growing, kept = 0, sum(_state_bytes(value) for value in states)
    for node in (node for node in graph.node if node.op_type == "GroupQueryAttention"):
        cache = sum(_cache_bytes(values[name]) for name in node.input[3:5])
        numbers = {attribute.name: attribute.i for attribute in node.attribute}
        if numbers.get("sliding_window_cache"):
            kept += cache * numbers["local_window_size"]
        else:
            growing += cache
    return growing, kept


def _state_bytes(value: onnx.ValueInfoProto) -> int:
    """All of a state for one sequence."""
    tensor = value.type.tensor_type
    return int(_nbytes(tensor.elem_type, math.prod(d.dim_value for d in tensor.shape.dim[1:])))


def _cache_bytes(value: onnx.ValueInfoProto) -> int:
    """One position of a cache [batch, kv_heads, positions, head size]."""
    tensor = value.type.tensor_type
    dims = [d.dim_value for d in tensor.shape.dim]
    return int(_nbytes(tensor.elem_type, dims[1] * dims[3])) if len(dims) == 4 else 0

"""Where a model switches its LongRoPE factors, and how an ONNX decoder graph tells.

genai_config.json has no place for it (unknown keys are an error in onnxruntime-genai 0.18), so the graph
itself is asked: it compares the total length with the original context, `Greater(total, original)`. Our own
graphs choose rows of one table with the answer, those of genai's model builder branch on it with `If`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from converters.errors import UnsupportedError

_SHORTEST = 16
"""Comparisons with smaller numbers are no context length (a graph may ask whether a length is over 1)."""


def switch_length(model: Path) -> int | None:
    """The total length up to which `model` uses its short factors; None when it has one set only.

    Reads the graph without its external data. Raises UnsupportedError when the file is no ONNX model, or
    branches on a length that is not to be found in it.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # no stubs in its wheel

    try:
        graph = onnx.load(str(model), load_external_data=False).graph
    except (OSError, DecodeError) as error:
        raise UnsupportedError(
            f"{model}: not a readable ONNX graph ({error})", hint="edge verify BUNDLE"
        ) from None
    scalars: dict[str, Any] = {t.name: t for t in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            scalars[node.output[0]] = next((a.t for a in node.attribute if a.name == "value"), None)
    integers = (onnx.TensorProto.INT64, onnx.TensorProto.INT32)
    limits = set()
    for node in graph.node:
        limit = scalars.get(node.input[1]) if node.op_type == "Greater" else None
        if limit is not None and limit.data_type in integers and all(dim == 1 for dim in limit.dims):
            limits.add(int(onnx.numpy_helper.to_array(limit).item()))
    limits = {limit for limit in limits if limit >= _SHORTEST}
    if len(limits) > 1 or (not limits and any(node.op_type == "If" for node in graph.node)):
        raise UnsupportedError(
            f"{model}: it branches on a length, and where is not clear ({sorted(limits) or 'no constant'})",
            hint="convert the checkpoint with `edge convert`",
        )
    return next(iter(limits), None)


def room(position: int, context_length: int, switch: int | None) -> int:
    """How many tokens can come after `position` at once without crossing `switch` in their midst."""
    end = switch if switch is not None and position < switch else context_length
    return end - position

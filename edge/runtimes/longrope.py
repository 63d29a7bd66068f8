"""Where an ONNX decoder graph switches its LongRoPE factors.

genai_config.json has no place for it (unknown keys are an error in onnxruntime-genai 0.18), so the graph
itself is asked: LongRoPE graphs choose their caches with `If(Greater(total_length, original_context))`.
"""

from __future__ import annotations

from pathlib import Path

from converters.errors import UnsupportedError

_GENAI_SWITCH = 4096
"""onnxruntime-genai's own rule for its `phi3` and `phimoe` types is fixed at this length."""


def switch_length(model: Path) -> int | None:
    """The total length up to which `model` uses its short factors; None when it has one set only.

    Reads the graph without its external data. Raises UnsupportedError when the file is no ONNX model.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # no stubs in its wheel

    try:
        graph = onnx.load(str(model), load_external_data=False).graph
    except (OSError, DecodeError) as error:
        raise UnsupportedError(
            f"{model}: not a readable ONNX graph ({error})", hint="edge verify BUNDLE"
        ) from None
    producer = {output: node for node in graph.node for output in node.output}
    scalars = {t.name: t for t in graph.initializer if _elements(t) == 1}
    choices = [node for node in graph.node if node.op_type == "If"]
    for choice in choices:
        compare = producer.get(choice.input[0])
        if compare is None or compare.op_type != "Greater":
            continue
        limit = scalars.get(compare.input[1])
        source = producer.get(compare.input[1])
        if limit is None and source is not None and source.op_type == "Constant":
            limit = next((a.t for a in source.attribute if a.name == "value"), None)
        if limit is not None:
            return int(onnx.numpy_helper.to_array(limit).item())
    return _GENAI_SWITCH if choices else None


def _elements(tensor: object) -> int:
    count = 1
    for dim in getattr(tensor, "dims", ()):
        count *= dim
    return count

"""The grids of a variant with 16-bit activations, from its graphs, beside what its ranges say they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import onnx

from converters.decoder import Decoder
from converters.onnx.layout import Layout
from converters.onnx.npu.qdq import RANGES_FILE, unmeasured, value_ranges
from converters.onnx.npu.rounding import grid
from converters.verify import Fact


def grid_facts(
    graphs: Mapping[str, onnx.GraphProto], ranges: Mapping[str, Any], decoder: Decoder, layout: Layout
) -> Iterator[Fact]:
    """Scale and zero point of every value of both NPU stages. `ranges`: the content of ranges.json."""
    named = set(unmeasured(decoder))
    pairs = all(isinstance(ends, list) and len(ends) == 2 for ends in ranges.values())
    yield Fact(f"{RANGES_FILE}: a pair for every weight", pairs and set(ranges) == named, True)
    if not pairs or set(ranges) != named:
        return
    values = value_ranges(decoder, layout, {name: (low, high) for name, (low, high) in ranges.items()})
    for stage in ("context", "iterator"):
        scalars = {
            tensor.name: onnx.numpy_helper.to_array(tensor)
            for tensor in graphs[f"{stage}.onnx"].initializer
            if tensor.name.endswith((".scale", ".zero"))
        }
        rounded = sum(node.op_type == "QuantizeLinear" for node in graphs[f"{stage}.onnx"].node)
        yield Fact(f"{stage}: number of QuantizeLinear nodes", rounded, len(values))
        for value, ends in values.items():
            scale, zero = grid(*ends)
            for name, expected in (("scale", float(scale)), ("zero", float(zero))):
                found = scalars.get(f"{value}.{name}")
                there = None if found is None else float(found)
                yield Fact(f"{stage}: {value}.{name}", there, expected)

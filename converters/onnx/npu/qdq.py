"""The stages of the NPU with 16-bit activations: whole numbers between the linear layers, and inside them.

    linear layers, SwiGLU, what goes into and comes out of attention     u16, one grid a value, from calibration
    weights                                                              `converters.onnx.npu.row_scaled`
    residual stream, norms, rotation, attention, KV cache                float16, as in `converters.onnx.npu.stages`

The residual stream stays float16: a few tokens' values in it are a thousand times the others', which would have a few
dozen steps on a grid that holds both. Attention stays float16 because GroupQueryAttention, the one form of it that
writes into a fixed cache, is compiled in float16 whatever stands around it.

Where a few tokens' values are far beyond all others' in a down projection's input too, it is cut in two: what lies in
the range of the others, and the rest, which is zero nearly everywhere; each has a grid of its own, the weight
multiplies both, and the sum is float16.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto

from converters.decoder import Decoder, Weight
from converters.onnx.layout import Layout
from converters.onnx.npu.layout import ZEROS
from converters.onnx.npu.rounding import Range, RoundedGraph
from converters.onnx.npu.row_scaled import RowScaled
from converters.onnx.npu.stages import IR_VERSION, OPSET, Layers
from quant.blocks import BLOCK

APART = 16
"""A down projection is cut in two where its input's range is so many times that of ordinary tokens."""
ROOM = 4
"""The grid of the first part's output is so many times wider than ordinary tokens need: the others reach in too."""
RANGES_FILE = "ranges.json"
_SILU_LEAST = -0.27846455
"""Of x / (1 + exp(-x)), at x = -1.2785."""


def rounded_layers(
    decoder: Decoder, layout: Layout, ranges: Mapping[str, Range], tokens: int, context_length: int
) -> onnx.ModelProto:
    """`context` or `iterator`. `ranges`: of every linear layer, as `quant.ranges` names them."""
    return _RoundedLayers(decoder, layout, ranges, tokens, context_length).build()


def unmeasured(decoder: Decoder) -> dict[str, Range]:
    """Ranges that stand for those of a calibration where only the graph's size is asked for."""
    matrices = [weight for layer in decoder.layers for weight in layer.weights() if weight.is_matrix]
    ends = [f"{weight.name}.{end}" for weight in matrices for end in ("in", "out")]
    downs = {layer.dense.down.name for layer in decoder.layers}
    more = [f"{end}.most" for end in ends if end.rpartition(".")[0] in downs]
    return dict.fromkeys([*ends, *more], (-1.0, 1.0))


def in_two(weight: Weight, ranges: Mapping[str, Range]) -> bool:
    """Whether the input of `weight`, a down projection, is cut in two."""
    most = ranges[f"{weight.name}.in.most"]
    return max(map(abs, ranges[f"{weight.name}.in"])) > APART * max(map(abs, most))


def ranges_json(ranges: Mapping[str, Range]) -> bytes:
    """As JSON that says every number exactly, and has the same size whatever they are."""
    lines = (f'  "{name}": [{low: .17e}, {high: .17e}]' for name, (low, high) in sorted(ranges.items()))
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def value_ranges(decoder: Decoder, layout: Layout, ranges: Mapping[str, Range]) -> dict[str, Range]:
    """By the names that values have in the graph."""
    found = {}
    for stored in layout.stored:
        if stored.weights[0].is_matrix:
            outputs = [ranges[f"{weight.name}.out"] for weight in stored.weights]
            found[f"{stored.name}.out"] = (min(low for low, _ in outputs), max(high for _, high in outputs))
    for index, layer in enumerate(decoder.layers):
        name, gate = f"layers.{index}", ranges[f"{layer.dense.gate.name}.out"]
        found |= {
            f"{layer.input_norm.name}.out": ranges[f"{layer.q.name}.in"],
            f"{name}.attend.out": ranges[f"{layer.o.name}.in"],
            f"{layer.post_attention_norm.name}.out": ranges[f"{layer.dense.gate.name}.in"],
            f"{name}.mlp.sigmoid": (0.0, 1.0),
            f"{name}.mlp.silu": (_SILU_LEAST, max(gate[1], 0.0)),
            **_down_ranges(f"{name}.mlp.product", layer.dense.down, ranges),
        }
        if in_two(layer.dense.down, ranges):
            del found[f"{layer.dense.down.name}.out"]
    return found


def _down_ranges(product: str, down: Weight, ranges: Mapping[str, Range]) -> dict[str, Range]:
    inputs, outputs = ranges[f"{down.name}.in"], ranges[f"{down.name}.out"]
    if not in_two(down, ranges):
        return {product: inputs}
    low, high = ranges[f"{down.name}.out.most"]
    return {
        f"{product}.ordinary": ranges[f"{down.name}.in.most"],
        f"{product}.rest": inputs,
        f"{down.name}.ordinary": (ROOM * low, ROOM * high),
        f"{down.name}.rest": outputs,
    }


class _RoundedLayers(Layers):
    def __init__(
        self,
        decoder: Decoder,
        layout: Layout,
        ranges: Mapping[str, Range],
        tokens: int,
        context_length: int,
    ) -> None:
        self._ends = {
            layer.dense.down.name: ranges[f"{layer.dense.down.name}.in.most"]
            for layer in decoder.layers
            if in_two(layer.dense.down, ranges)
        }
        rounded = value_ranges(decoder, layout, ranges)
        graph = RoundedGraph(layout, rounded, opset=OPSET, ir_version=IR_VERSION)
        super().__init__(decoder, layout, tokens, context_length, graph)

    def linear(self, weight: Weight, x: str) -> str:
        stored = self._stored[weight.name]
        if not isinstance(stored, RowScaled):
            raise ValueError(f"{stored.name} has no scale a row")
        columns = self._columns(stored)
        if weight.name not in self._ends:
            return self._graph.node("MatMul", [x, columns], f"{stored.name}.out")
        ends = [
            self._graph.constant(f"{x}.{name}", np.asarray(end, np.float16))
            for name, end in zip(("least", "largest"), self._ends[weight.name], strict=True)
        ]
        ordinary = self._graph.node("Clip", [x, *ends], f"{x}.ordinary")
        rest = self._graph.node("Sub", [x, f"{x}.ordinary"], f"{x}.rest")
        parts = [
            self._graph.node("MatMul", [part, columns], f"{stored.name}.{name}")
            for part, name in ((ordinary, "ordinary"), (rest, "rest"))
        ]
        return self._graph.node("Add", parts, f"{stored.name}.out")

    def _columns(self, stored: RowScaled) -> str:
        """The weight as float16 [columns, rows]. It lies in rows; onnxruntime turns it once, when it loads."""
        graph, name = self._graph, stored.name
        codes, *others = stored.tensors
        shape = (stored.rows, stored.columns)
        kind = TensorProto.INT4 if stored.is_int4 else TensorProto.INT8
        turned = self._turned_over(graph.external(codes, dims=shape, kind=kind))
        scales = graph.external(others[-1])
        if not stored.is_int4:
            return graph.node(
                "DequantizeLinear",
                [turned, scales],
                f"{name}.columns",
                axis=1,
                output_dtype=TensorProto.FLOAT16,
            )
        multiples = self._turned_over(graph.external(others[0]))
        blocks = stored.columns // BLOCK
        # Without a zero point of type int4 the provider takes the weights for 8 bits, and then not at all.
        zeros = graph.external(
            self._layout.tensors[ZEROS],
            name=f"{name}.zeros",
            dims=(blocks, stored.rows),
            kind=TensorProto.INT4,
            nbytes=stored.zeros_nbytes,
        )
        block_scales = graph.node("DequantizeLinear", [multiples, scales], f"{name}.block_scales", axis=1)
        return graph.node(
            "DequantizeLinear",
            [turned, block_scales, zeros],
            f"{name}.columns",
            axis=0,
            block_size=BLOCK,
            output_dtype=TensorProto.FLOAT16,
        )

    def _turned_over(self, matrix: str) -> str:
        return self._graph.node("Transpose", [matrix], f"{matrix}.turned_over", perm=[1, 0])

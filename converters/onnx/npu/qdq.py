"""The stages of the NPU with 16-bit activations: whole numbers between the linear layers, and inside them.

    linear layers, SwiGLU, what goes into and comes out of attention     u16, one grid a value, from calibration
    weights                                                              `converters.onnx.npu.row_scaled`
    residual stream, norms, rotation, attention, KV cache                float16, as in `converters.onnx.npu.stages`

The residual stream stays float16: the first tokens' values in it are a thousand times the others', and on a grid
that holds those the others would have ten steps. Attention stays float16 because GroupQueryAttention, the only form
of it that writes into a fixed cache, is taken in float16 only.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import TensorProto

from converters.decoder import Decoder, Weight
from converters.onnx.layout import Layout
from converters.onnx.npu.layout import ZEROS
from converters.onnx.npu.rounding import Range, RoundedGraph
from converters.onnx.npu.row_scaled import RowScaled
from converters.onnx.npu.stages import IR_VERSION, OPSET, Layers
from quant.blocks import BLOCK

RANGES_FILE = "ranges.json"
_SILU_LEAST = -0.27846455
"""Of x / (1 + exp(-x)), at x = -1.2785."""


def rounded_layers(
    decoder: Decoder, layout: Layout, ranges: Mapping[str, Range], tokens: int, context_length: int
) -> onnx.ModelProto:
    """`context` or `iterator`. `ranges`: of every linear layer, WEIGHT.in and WEIGHT.out (`quant.ranges`)."""
    return _RoundedLayers(decoder, layout, ranges, tokens, context_length).build()


def unmeasured(decoder: Decoder) -> dict[str, Range]:
    """Ranges that stand for those of a calibration where only the graph's size is asked for."""
    matrices = (weight for layer in decoder.layers for weight in layer.weights() if weight.is_matrix)
    return {f"{weight.name}.{end}": (-1.0, 1.0) for weight in matrices for end in ("in", "out")}


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
        name, gate = f"layers.{index}", ranges[f"{layer.gate.name}.out"]
        found |= {
            f"{layer.input_norm.name}.out": ranges[f"{layer.q.name}.in"],
            f"{name}.attend.out": ranges[f"{layer.o.name}.in"],
            f"{layer.post_attention_norm.name}.out": ranges[f"{layer.gate.name}.in"],
            f"{name}.mlp.sigmoid": (0.0, 1.0),
            f"{name}.mlp.silu": (_SILU_LEAST, max(gate[1], 0.0)),
            f"{name}.mlp.product": ranges[f"{layer.down.name}.in"],
        }
    return found


class _RoundedLayers(Layers):
    def __init__(
        self,
        decoder: Decoder,
        layout: Layout,
        ranges: Mapping[str, Range],
        tokens: int,
        context_length: int,
    ) -> None:
        rounded = value_ranges(decoder, layout, ranges)
        graph = RoundedGraph(layout, rounded, opset=OPSET, ir_version=IR_VERSION)
        super().__init__(decoder, layout, tokens, context_length, graph)

    def linear(self, weight: Weight, x: str) -> str:
        stored = self._stored[weight.name]
        if not isinstance(stored, RowScaled):
            raise ValueError(f"{stored.name} has no scale a row")
        return self._graph.node("MatMul", [x, self._columns(stored)], f"{stored.name}.out")

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

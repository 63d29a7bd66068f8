"""The decoder as an ONNX graph for DirectML: float16 between int4, int8 or float16 weights.

Inputs `input_ids`, `position_ids` and `attention_mask` (int64 [batch, tokens] twice, [batch, total]) and the KV cache
`past_key_values.N.key/value` (float16 [batch, kv_heads, past, head size]); outputs `logits` (float16 [batch, tokens,
vocabulary]) and `present.N.key/value`.

DirectML has no GatherBlockQuantized: an embedding row is looked up as codes and scales, and multiplied out in the
graph. A tied one so needs no second table in float16.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from converters.decoder import Decoder, Layer, Weight
from converters.onnx.dml.config import POSITIONS
from converters.onnx.dml.layout import zero_points
from converters.onnx.graph import MICROSOFT, Graph
from converters.onnx.layout import Layout
from converters.onnx.parts import gated, matmul_nbits, residual_norm
from converters.onnx.rotary import COS, SIN
from converters.onnx.tensors import Tensor
from quant.blocks import BLOCK

FLOAT16, FLOAT32 = np.dtype(np.float16), np.dtype(np.float32)


def build(
    decoder: Decoder, layout: Layout, *, activations: np.dtype[np.floating] = FLOAT16
) -> onnx.ModelProto:
    """The graph file of a variant. `activations` float32: the same graph over the same data file for an executor
    that has no float16; its inputs, outputs and cache are then float32 too."""
    return _Builder(decoder, layout, activations).build()


class _Builder:
    def __init__(self, decoder: Decoder, layout: Layout, activations: np.dtype[np.floating]) -> None:
        self._decoder = decoder
        self._layout = layout
        self._type = activations
        self._onnx_type = helper.np_dtype_to_tensor_dtype(activations)
        self._graph = Graph(layout)
        self._stored = {stored.weights[0].name: stored for stored in layout.stored}
        self._floats: dict[str, str] = {}

    def build(self) -> onnx.ModelProto:
        decoder, graph = self._decoder, self._graph
        lengths = self._lengths()
        tables = [self._float(self._layout.tensors[name]) for name in (COS, SIN)]
        residual, update = self._embed(), None
        for i, layer in enumerate(decoder.layers):
            normed, residual = self._norm(layer.input_norm, residual, update)
            update = self._linear(layer.o, self._attend(i, layer, normed, lengths, tables))
            normed, residual = self._norm(layer.post_attention_norm, residual, update)
            update = self._mlp(i, layer, normed)
        normed, _ = self._norm(decoder.final_norm, residual, update)
        self._linear(decoder.lm_head, normed, output="logits")
        return graph.model(*self._signature())

    def _lengths(self) -> list[str]:
        """`seqlens_k` int32 [batch] and `total_sequence_length` int32, as GroupQueryAttention wants them."""
        graph = self._graph
        graph.constant("one", 1)
        graph.constant("one_axis", [1])
        counted = graph.node("ReduceSum", ["attention_mask", "one_axis"], "counted", keepdims=0)
        last = graph.node("Sub", [counted, "one_axis"], "last")
        lengths = graph.node("Cast", [last], "lengths", to=TensorProto.INT32)
        shape = graph.node("Shape", ["attention_mask"], "mask_shape")
        total = graph.node("Gather", [shape, "one"], "total_int64")
        return [lengths, graph.node("Cast", [total], "total", to=TensorProto.INT32)]

    def _float(self, tensor: Tensor) -> str:
        """A tensor of the data file in the type of the activations; onnxruntime casts it once, when it loads."""
        if tensor.name not in self._floats:
            name = self._graph.external(tensor)
            self._floats[tensor.name] = name if tensor.dtype == self._type else self._cast(name)
        return self._floats[tensor.name]

    def _cast(self, value: str) -> str:
        return self._graph.node("Cast", [value], f"{value}.{self._type}", to=self._onnx_type)

    def _embed(self) -> str:
        """Rows [batch, tokens, hidden] of the embedding at `input_ids`."""
        graph, stored = self._graph, self._stored[self._decoder.embedding.name]
        tensors = [(t, graph.external(t) if t.dtype == np.uint8 else self._float(t)) for t in stored.tensors]
        parts = [graph.node("Gather", [name, "input_ids"], f"{t.name}.here") for t, name in tensors]
        if stored.format is None:
            return parts[0]
        codes, scales = parts
        if stored.format.bits == 4:
            codes = self._nibbles(codes)
        zero = graph.constant("code_of_zero", np.array(1 << (stored.format.bits - 1), self._type))
        values = graph.node("Sub", [self._cast(codes), zero], "embedded.steps")
        graph.constant("last_axis", [-1])
        scales = graph.node("Unsqueeze", [scales, "last_axis"], "embedded.scales")
        values = graph.node("Mul", [values, scales], "embedded.blocks")
        flat = graph.constant("embedded.shape", [0, 0, stored.columns])
        return graph.node("Reshape", [values, flat], "embedded")

    def _nibbles(self, codes: str) -> str:
        """uint8 [batch, tokens, blocks, 16] -> [batch, tokens, blocks, 32], the low half of a byte first."""
        graph = self._graph
        low_bits = graph.constant("low_bits", np.array(15, np.uint8))
        four = graph.constant("four", np.array(4, np.uint8))
        low = graph.node("BitwiseAnd", [codes, low_bits], f"{codes}.low")
        high = graph.node("BitShift", [codes, four], f"{codes}.high", direction="RIGHT")
        pair_axis = graph.constant("pair_axis", [4])
        halves = [graph.node("Unsqueeze", [half, pair_axis], f"{half}.alone") for half in (low, high)]
        pairs = graph.node("Concat", halves, f"{codes}.pairs", axis=-1)
        by_block = graph.constant("by_block", [0, 0, 0, BLOCK])
        return graph.node("Reshape", [pairs, by_block], f"{codes}.nibbles")

    def _norm(self, weight: Weight, residual: str, update: str | None) -> tuple[str, str]:
        gain = self._float(self._stored[weight.name].tensors[0])
        return residual_norm(self._graph, weight.name, residual, update, gain, self._decoder.norm_eps)

    def _attend(self, index: int, layer: Layer, x: str, lengths: list[str], tables: list[str]) -> str:
        attention, name = self._decoder.attention, f"layers.{index}.attend"
        q = self._turned(self._linear(layer.q, x), attention.heads, tables)
        k = self._turned(self._linear(layer.k, x), attention.kv_heads, tables)
        v = self._linear(layer.v, x)
        past = [f"past_key_values.{index}.{part}" for part in ("key", "value")]
        present = [f"present.{index}.{part}" for part in ("key", "value")]
        return self._graph.node(
            "GroupQueryAttention",
            [q, k, v, *past, *lengths],
            [f"{name}.out", *present],
            domain=MICROSOFT,
            num_heads=attention.heads,
            kv_num_heads=attention.kv_heads,
            scale=attention.scale,
            do_rotary=0,
        )

    def _turned(self, x: str, heads: int, tables: list[str]) -> str:
        """The first `rope.dim` channels of each head turned; the kernel wants the heads' number where that is not
        all of them."""
        return self._graph.node(
            "RotaryEmbedding",
            [x, POSITIONS, *tables],
            f"{x}.turned",
            domain=MICROSOFT,
            num_heads=heads,
            rotary_embedding_dim=self._decoder.rope.dim,
            interleaved=0,
        )

    def _mlp(self, index: int, layer: Layer, x: str) -> str:
        gate, up = self._linear(layer.dense.gate, x), self._linear(layer.dense.up, x)
        return self._linear(layer.dense.down, gated(self._graph, f"layers.{index}.mlp", gate, up))

    def _linear(self, weight: Weight, x: str, *, output: str | None = None) -> str:
        """x times the transpose of `weight`."""
        graph, stored = self._graph, self._stored[weight.name]
        output = output or f"{weight.name}.out"
        zeros = zero_points(stored, self._decoder)
        if stored.format is None or zeros is None:
            values = self._float(stored.tensors[0])
            return graph.node("FusedMatMul", [x, values], output, domain=MICROSOFT, transB=1)
        codes, scales = stored.tensors
        weight_inputs = [graph.external(codes), self._float(scales), graph.external(zeros)]
        return matmul_nbits(graph, stored, x, output, weight_inputs)

    def _signature(self) -> tuple[list[onnx.ValueInfoProto], list[onnx.ValueInfoProto]]:
        attention, layers = self._decoder.attention, range(len(self._decoder.layers))

        def info(name: str, shape: list[str | int], kind: int = TensorProto.INT64) -> onnx.ValueInfoProto:
            return helper.make_tensor_value_info(name, kind, shape)

        def caches(prefix: str, length: str) -> list[onnx.ValueInfoProto]:
            shape: list[str | int] = ["batch", attention.kv_heads, length, attention.head_dim]
            names = [f"{prefix}.{i}.{part}" for i in layers for part in ("key", "value")]
            return [info(name, shape, self._onnx_type) for name in names]

        inputs = [
            info("input_ids", ["batch", "tokens"]),
            info(POSITIONS, ["batch", "tokens"]),
            info("attention_mask", ["batch", "total"]),
            *caches("past_key_values", "past"),
        ]
        logits = info("logits", ["batch", "tokens", self._decoder.vocab_size], self._onnx_type)
        return inputs, [logits, *caches("present", "present")]

"""The four graphs of a static decoder pipeline, as onnxruntime-genai's `decoder-pipeline` runs them.

    embeddings    input_ids int64 [1, n] -> hidden float16 [1, n, hidden]                        CPU
    context       hidden [1, window, hidden] and the KV cache -> the same, after every layer       NPU
    iterator      the same graph for one token                                                    NPU
    lm_head       float16 [1, n, hidden] -> logits float32 [1, n, vocabulary]                     CPU

The cache is float16 [1, kv_heads, context_length, head_dim] a layer, all of it from the start. `past_seq_len` int32
[1, 1] is the position of the last of a stage's tokens, `total_seq_len` int32 [1] the length of the cache. Positions
are counted from the former inside the graph: those that the engine computes are wrong after a padded window.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper

from converters.decoder import Decoder, Layer, Weight
from converters.onnx.graph import MICROSOFT, Graph
from converters.onnx.layout import Layout
from converters.onnx.npu.layout import Files
from converters.onnx.parts import embed, matmul_nbits
from converters.onnx.rotary import COS, SIN
from converters.onnx.tensors import Stored

HIDDEN_IN, HIDDEN_OUT, PAST, TOTAL = "hidden", "hidden.after", "past_seq_len", "total_seq_len"
OPSET, IR_VERSION = 23, 11
"""Opset 23 brings RotaryEmbedding; IR 11 is what belongs to it (ONNX, docs/Versioning.md)."""
CPU_ACCURACY_LEVEL = 4


def embeddings(decoder: Decoder, files: Files) -> onnx.ModelProto:
    graph = Graph(files.head, opset=OPSET, ir_version=IR_VERSION)
    rows = embed(graph, stored_of(files.head, decoder.embedding))
    graph.node("Cast", [rows], HIDDEN_IN, to=TensorProto.FLOAT16)
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, [1, "tokens"])
    return graph.model([ids], [_hidden(HIDDEN_IN, decoder, "tokens")])


def lm_head(decoder: Decoder, files: Files) -> onnx.ModelProto:
    graph = Graph(files.head, opset=OPSET, ir_version=IR_VERSION)
    x = graph.node("Cast", [HIDDEN_OUT], "hidden.float32", to=TensorProto.FLOAT)
    stored = stored_of(files.head, decoder.lm_head)
    matmul_nbits(graph, stored, x, "logits", accuracy_level=CPU_ACCURACY_LEVEL)
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, "tokens", decoder.vocab_size])
    return graph.model([_hidden(HIDDEN_OUT, decoder, "tokens")], [logits])


def layers(decoder: Decoder, files: Files, tokens: int, context_length: int) -> onnx.ModelProto:
    """`context` or `iterator`, for that many tokens at a time."""
    return Layers(decoder, files.layers, tokens, context_length).build()


def stored_of(layout: Layout, weight: Weight) -> Stored:
    return next(stored for stored in layout.stored if weight in stored.weights)


def cache_names(decoder: Decoder, prefix: str) -> list[str]:
    return [f"{prefix}.{i}.{part}" for i in range(len(decoder.layers)) for part in ("key", "value")]


def _hidden(name: str, decoder: Decoder, tokens: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT16, [1, tokens, decoder.hidden_size])


class Layers:
    """Builds a stage of the NPU. What a value is rounded to is its graph's business, how a weight is multiplied by
    that of `linear`; a form of other numbers has its own of both."""

    def __init__(
        self,
        decoder: Decoder,
        layout: Layout,
        tokens: int,
        context_length: int,
        graph: Graph | None = None,
    ) -> None:
        self._decoder = decoder
        self._layout = layout
        self._tokens = tokens
        self._context_length = context_length
        self._graph = graph or Graph(layout, opset=OPSET, ir_version=IR_VERSION)
        self._stored: Mapping[str, Stored] = {w.name: s for s in layout.stored for w in s.weights}
        # RotaryEmbedding where the whole head does not turn: GroupQueryAttention then computes something else.
        self._partial = decoder.rope.dim < decoder.attention.head_dim

    def build(self) -> onnx.ModelProto:
        decoder, graph = self._decoder, self._graph
        cos, sin = (self._half(graph.external(self._layout.tensors[name])) for name in (COS, SIN))
        if self._partial:
            steps = np.arange(1 - self._tokens, 1, dtype=np.int32)[None]
            positions = graph.node("Add", [PAST, graph.constant("steps", steps)], "positions.int32")
            graph.node("Cast", [positions], "positions", to=TensorProto.INT64)
        x = HIDDEN_IN
        for i, layer in enumerate(decoder.layers):
            attended = self._attend(i, self._qkv(i, layer, self._norm(layer.input_norm, x)), cos, sin)
            update = self.linear(layer.o, attended)
            x = graph.node("Add", [x, update], f"layers.{i}.attention.sum")
            update = self._mlp(i, layer, self._norm(layer.post_attention_norm, x))
            x = graph.node("Add", [x, update], f"layers.{i}.mlp.sum")
        self._norm(decoder.final_norm, x, output=HIDDEN_OUT)
        return graph.model(*self._signature())

    def _norm(self, weight: Weight, x: str, *, output: str | None = None) -> str:
        gain = self._half(self._graph.external(self._stored[weight.name].tensors[0]))
        return self._graph.node(
            "SimplifiedLayerNormalization",
            [x, gain],
            output or f"{weight.name}.out",
            axis=-1,
            epsilon=self._decoder.norm_eps,
            stash_type=1,
        )

    def _half(self, stored: str) -> str:
        """Of a float32 tensor of the data file; onnxruntime casts it once, when it loads the graph."""
        return self._graph.node("Cast", [stored], f"{stored}.float16", to=TensorProto.FLOAT16)

    def linear(self, weight: Weight, x: str) -> str:
        stored = self._stored[weight.name]
        return matmul_nbits(self._graph, stored, x, f"{stored.name}.out")

    def _qkv(self, index: int, layer: Layer, x: str) -> tuple[str, str, str]:
        """Query, key and value; or, where the kernel turns them, all three in the first."""
        weights = (layer.q, layer.k, layer.v)
        packed = self._stored[layer.q.name] is self._stored[layer.v.name]
        name = f"layers.{index}.attention.qkv.out"
        if not packed:
            parts = [self.linear(weight, x) for weight in weights]
            if self._partial:
                return parts[0], parts[1], parts[2]
            return self._graph.node("Concat", parts, name, axis=-1), "", ""
        value = self.linear(layer.q, x)
        if not self._partial:
            return value, "", ""
        sizes = self._graph.constant("qkv_widths", [weight.rows for weight in weights])
        q, k, v = (f"{weight.name}.part" for weight in weights)
        self._graph.node("Split", [value, sizes], [q, k, v], axis=-1)
        return q, k, v

    def _attend(self, index: int, qkv: tuple[str, str, str], cos: str, sin: str) -> str:
        graph, attention, name = self._graph, self._decoder.attention, f"layers.{index}.attend"
        q, k, v = qkv
        tables = [cos, sin]
        if self._partial:
            q, k = self._turned(q, attention.heads, cos, sin), self._turned(k, attention.kv_heads, cos, sin)
            tables = []
        past = [f"past_key_values.{index}.{part}" for part in ("key", "value")]
        present = [f"present.{index}.{part}" for part in ("key", "value")]
        return graph.node(
            "GroupQueryAttention",
            [q, k, v, *past, PAST, TOTAL, *tables],
            [f"{name}.out", *present],
            domain=MICROSOFT,
            num_heads=attention.heads,
            kv_num_heads=attention.kv_heads,
            scale=attention.scale,
            do_rotary=int(not self._partial),
            rotary_interleaved=0,
        )

    def _turned(self, x: str, heads: int, cos: str, sin: str) -> str:
        return self._graph.node(
            "RotaryEmbedding",
            [x, cos, sin, "positions"],
            f"{x}.turned",
            num_heads=heads,
            rotary_embedding_dim=self._decoder.rope.dim,
            interleaved=0,
        )

    def _mlp(self, index: int, layer: Layer, x: str) -> str:
        """SwiGLU (arXiv 2002.05202): down(silu(gate x) * up x)."""
        graph, name = self._graph, f"layers.{index}.mlp"
        gate, up = self.linear(layer.dense.gate, x), self.linear(layer.dense.up, x)
        silu = graph.node("Mul", [gate, graph.node("Sigmoid", [gate], f"{name}.sigmoid")], f"{name}.silu")
        return self.linear(layer.dense.down, graph.node("Mul", [silu, up], f"{name}.product"))

    def _signature(self) -> tuple[list[onnx.ValueInfoProto], list[onnx.ValueInfoProto]]:
        decoder, tokens = self._decoder, self._tokens
        cache = [1, decoder.attention.kv_heads, self._context_length, decoder.attention.head_dim]

        def caches(prefix: str) -> list[onnx.ValueInfoProto]:
            names = cache_names(decoder, prefix)
            return [helper.make_tensor_value_info(name, TensorProto.FLOAT16, cache) for name in names]

        inputs = [
            _hidden(HIDDEN_IN, decoder, tokens),
            helper.make_tensor_value_info(PAST, TensorProto.INT32, [1, 1]),
            helper.make_tensor_value_info(TOTAL, TensorProto.INT32, [1]),
            *caches("past_key_values"),
        ]
        return inputs, [_hidden(HIDDEN_OUT, decoder, tokens), *caches("present")]

"""The decoder as an ONNX graph for the CPU: eleven nodes a layer where the kernel rotates, float32
activations.

Inputs `input_ids` and `attention_mask` (int64 [batch, tokens], [batch, total]) and the KV cache
`past_key_values.N.key/value` (float32 [batch, kv_heads, past, head size]); outputs `logits`
(float32 [batch, tokens, vocabulary]) and `present.N.key/value`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx
from onnx import TensorProto, helper

from converters.decoder import Decoder, Experts, GegeluMlp, Layer, RoutedMlp, Weight
from converters.hybrid import HybridDecoder
from converters.lora import changed
from converters.onnx.attention import attend, shared
from converters.onnx.built_in import BuiltIn, add_product
from converters.onnx.experts import mix, route
from converters.onnx.factored import add_rows, halves
from converters.onnx.graph import Graph
from converters.onnx.hybrid_graph import build_hybrid
from converters.onnx.layout import Layout
from converters.onnx.lora import adapter_inputs, add_updates
from converters.onnx.padded_heads import cached_head_dim
from converters.onnx.parts import embed, gated, linear, residual_norm
from converters.onnx.routed import route_ids
from converters.onnx.sparse import finish_logits, gegelu

IDS, EMBEDS = "input_ids", "inputs_embeds"
ACCURACY_LEVEL = 4
"""MatMulNBits rounds activations to int8 in blocks: more than twice the decode speed of the float kernels."""
BEFORE_ROUTER = 0
"""The same for the layers of a model with experts, where a rounded activation sends tokens to other experts: of a
random Phi-3.5-MoE of 2 layers and 128 channels the graph's KL is 0.020 nats with level 4, 0.0035 with the experts
alone at level 4, and 7e-13 with level 0 (a dense model at level 4: 0.0003); it grows with every layer, to 0.057 for 8
with the experts at level 4. The float kernels take three times as long on one core."""


def build(
    decoder: Decoder, layout: Layout, context_length: int, *, accuracy_level: int = ACCURACY_LEVEL
) -> onnx.ModelProto:
    """The graph file of a variant. `accuracy_level`: 0 multiplies by the dequantized weights in float32."""
    if isinstance(decoder, HybridDecoder):
        return build_hybrid(decoder, layout, context_length, accuracy_level=accuracy_level)
    return _Builder(decoder, layout, context_length, accuracy_level).build()


def build_embedded(
    decoder: Decoder,
    layout: Layout,
    context_length: int,
    built_in: BuiltIn | None,
    *,
    accuracy_level: int = ACCURACY_LEVEL,
) -> onnx.ModelProto:
    """The graph of a decoder that takes `inputs_embeds` (float32 [batch, tokens, hidden]) in place of `input_ids`, with
    the updates of one built-in adapter or of none."""
    decoder = replace(decoder, adapters=())
    return _Builder(decoder, layout, context_length, accuracy_level, built_in, embedded=True).build()


class _Builder:
    def __init__(
        self,
        decoder: Decoder,
        layout: Layout,
        context_length: int,
        accuracy_level: int,
        built_in: BuiltIn | None = None,
        *,
        embedded: bool = False,
    ) -> None:
        self._decoder = decoder
        self._input = EMBEDS if embedded else IDS
        self._updates = built_in.updates if built_in else {}
        self._context_length = context_length
        self._accuracy_level = accuracy_level
        self._layer_level = BEFORE_ROUTER if decoder.has_experts else accuracy_level
        self._graph = Graph(layout, *([built_in.layout] if built_in else []))
        self._layout = layout
        self._stored = {weight.name: stored for stored in layout.stored for weight in stored.weights}
        self._changed = {stack.weights[0].name: stack for stack in changed(decoder)}

    def build(self) -> onnx.ModelProto:
        decoder, graph = self._decoder, self._graph
        common = shared(graph, decoder, self._layout, self._context_length, self._input)
        residual, update = self._embedded(), None
        for i, layer in enumerate(decoder.layers):
            normed, residual = self._norm(layer.input_norm, layer.input_norm_bias, residual, update)
            qkv = self._packed_qkv(i, layer, normed)
            attended = attend(graph, i, qkv, decoder, common, self._context_length)
            update = self._linear(layer.o, attended, layer.o_bias, level=self._layer_level)
            update = self._adapted(layer.o, attended, [update])[0]
            bias = layer.post_attention_norm_bias
            normed, residual = self._norm(layer.post_attention_norm, bias, residual, update)
            update = self._mlp(i, layer, normed)
        normed, _ = self._norm(decoder.final_norm, decoder.final_norm_bias, residual, update)
        self._logits(normed)
        return graph.model(*self._signature())

    def _embedded(self) -> str:
        if self._input == EMBEDS:
            return EMBEDS
        rows = embed(self._graph, self._stored[self._decoder.embedding.name])
        if self._decoder.embedding_scale == 1:
            return rows
        scale = self._graph.constant("embedding_scale", np.array(self._decoder.embedding_scale, np.float32))
        return self._graph.node("Mul", [rows, scale], "embedded.scaled")

    def _logits(self, normed: str) -> None:
        decoder = self._decoder
        finished = decoder.logit_scale == 1 and not decoder.unused_tokens
        output = "logits" if finished else "logits.raw"
        self._linear(decoder.lm_head, normed, decoder.lm_head_bias, output=output)
        if not finished:
            finish_logits(self._graph, decoder, output)

    def _norm(
        self, weight: Weight, bias: Weight | None, residual: str, update: str | None
    ) -> tuple[str, str]:
        decoder, gain = self._decoder, self._vector(weight)
        return residual_norm(
            self._graph, weight.name, residual, update, gain, decoder.norm_eps,
            kind=decoder.norm, bias=self._vector(bias) or None,
        )  # fmt: skip

    def _vector(self, weight: Weight | None) -> str:
        """All that is stored together with it; empty for none."""
        return "" if weight is None else self._graph.external(self._stored[weight.name].tensors[0])

    def _packed_qkv(self, index: int, layer: Layer, x: str) -> str:
        if layer.q.factors:
            packed = self._factored((layer.q, layer.k, layer.v), x)
        elif self._stored[layer.q.name] is self._stored[layer.v.name]:
            packed = self._linear(layer.q, x, layer.q_bias, level=self._layer_level)
        else:
            weights = ((layer.q, layer.q_bias), (layer.k, layer.k_bias), (layer.v, layer.v_bias))
            parts = [self._linear(weight, x, bias, level=self._layer_level) for weight, bias in weights]
            packed = self._graph.node("Concat", parts, f"layers.{index}.attention.qkv.out", axis=-1)
        return self._adapted(layer.q, x, [packed])[0]

    def _mlp(self, index: int, layer: Layer, x: str) -> str:
        graph, mlp = self._graph, layer.mlp
        if isinstance(mlp, Experts):
            name, first = f"layers.{index}.moe", mlp.experts[0]
            weights = route(graph, name, self._linear(mlp.router, x), mlp)
            stored = [self._stored[weight.name] for weight in (first.gate, first.down)]
            return mix(graph, name, x, weights, stored, self._layer_level)
        if isinstance(mlp, RoutedMlp):
            name, first = f"layers.{index}.moe", mlp.experts[0]
            weights = route_ids(graph, name, self._vector(mlp.table), len(mlp.experts))
            stored = [self._stored[weight.name] for weight in (first.gate, first.down)]
            return mix(graph, name, x, weights, stored, self._accuracy_level, k=1)
        if isinstance(mlp, GegeluMlp):
            inner = gegelu(graph, f"layers.{index}.mlp", mlp, self._linear(mlp.gate_up, x, mlp.gate_up_bias))
            return self._linear(mlp.down, inner, mlp.down_bias)
        name = f"layers.{index}.mlp"
        if mlp.gate.factors:
            both = halves(graph, name, self._factored((mlp.gate, mlp.up), x))
        else:
            both = [self._linear(weight, x) for weight in (mlp.gate, mlp.up)]
        gate, up = self._adapted(mlp.gate, x, both)
        inner = gated(graph, name, gate, up)
        return self._adapted(mlp.down, inner, [self._linear(mlp.down, inner)])[0]

    def _factored(self, weights: Sequence[Weight], x: str) -> str:
        """x times the transposes of all that shares the first one's `a`."""
        shared = weights[0].factors
        assert shared is not None
        low_rank = self._linear(shared.b, self._linear(shared.a, x))
        return add_rows(self._graph, weights, low_rank, self._linear(shared.sparse, x))

    def _adapted(self, weight: Weight, x: str, outputs: list[str]) -> list[str]:
        """The outputs of the stack that begins with `weight`, with an adapter's update where one changes it."""
        if update := self._updates.get(weight.name):
            return add_product(self._graph, update, x, outputs, self._accuracy_level)
        stack = self._changed.get(weight.name)
        return add_updates(self._graph, stack, x, outputs) if stack else outputs

    def _linear(
        self,
        weight: Weight,
        x: str,
        bias: Weight | None = None,
        *,
        output: str | None = None,
        level: int | None = None,
    ) -> str:
        """x times the transpose of all that is stored together with `weight`, plus the bias."""
        if weight.factors:
            return self._factored((weight,), x)
        stored = self._stored[weight.name]
        level = self._accuracy_level if level is None else level
        output = output or f"{stored.name}.out"
        return linear(self._graph, stored, x, output, bias=self._vector(bias), accuracy_level=level)

    def _signature(self) -> tuple[list[onnx.ValueInfoProto], list[onnx.ValueInfoProto]]:
        attention, layers = self._decoder.attention, range(len(self._decoder.layers))

        def info(name: str, kind: int, shape: list[str | int]) -> onnx.ValueInfoProto:
            return helper.make_tensor_value_info(name, kind, shape)

        def cache(prefix: str, length: str) -> list[onnx.ValueInfoProto]:
            shape: list[str | int] = ["batch", attention.kv_heads, length, cached_head_dim(self._decoder)]
            names = [f"{prefix}.{i}.{part}" for i in layers for part in ("key", "value")]
            return [info(name, TensorProto.FLOAT, shape) for name in names]

        tokens = {
            IDS: info(IDS, TensorProto.INT64, ["batch", "tokens"]),
            EMBEDS: info(EMBEDS, TensorProto.FLOAT, ["batch", "tokens", self._decoder.hidden_size]),
        }
        inputs = [
            tokens[self._input],
            info("attention_mask", TensorProto.INT64, ["batch", "total"]),
            *cache("past_key_values", "past"),
            *adapter_inputs(self._decoder),
        ]
        logits: list[str | int] = ["batch", "tokens", self._decoder.vocab_size]
        return inputs, [info("logits", TensorProto.FLOAT, logits), *cache("present", "present")]

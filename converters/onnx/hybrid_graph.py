"""A hybrid decoder as an ONNX graph for the CPU, float32 activations.

Inputs and outputs as those of `decoder_graph`, and for every Mamba layer N the states
`past_key_values.N.conv_state` float32 [batch, taps - 1, width] and `past_key_values.N.recurrent_state` float32
[batch, 1, width, states], which begin as zeros and come back as `present.N.*`. Only layers that make keys and values
have a cache of them.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from converters.decoder import Weight
from converters.hybrid import DifferentialAttention, GatedMemory, HybridDecoder, Mamba, Mixer
from converters.onnx.attention import lengths_of
from converters.onnx.differential import differential
from converters.onnx.graph import Graph
from converters.onnx.hybrid_common import Common
from converters.onnx.layout import Layout
from converters.onnx.mamba import gated_memory, mamba
from converters.onnx.parts import embed, gated, linear

KV = ("key", "value")


def build_hybrid(
    decoder: HybridDecoder, layout: Layout, context_length: int, *, accuracy_level: int
) -> onnx.ModelProto:
    """The graph file of a variant; see `decoder_graph.build`."""
    return _Builder(decoder, layout, context_length, accuracy_level).build()


class _Builder:
    def __init__(
        self, decoder: HybridDecoder, layout: Layout, context_length: int, accuracy_level: int
    ) -> None:
        self._decoder = decoder
        self._context_length = context_length
        self._accuracy_level = accuracy_level
        self._graph = Graph(layout)
        self._stored = {weight.name: stored for stored in layout.stored for weight in stored.weights}

    def build(self) -> onnx.ModelProto:
        decoder, graph = self._decoder, self._graph
        _, lengths, total = lengths_of(graph)
        total = graph.node("Cast", [total], "total", to=TensorProto.INT32)
        common = Common(self._linear, self._vector, decoder.attention, lengths, total, self._context_length)
        hidden = embed(graph, self._stored[decoder.embedding.name])
        for index, block in enumerate(decoder.blocks):
            normed = self._norm(block.input_norm, block.input_norm_bias, hidden)
            mixed = self._mix(index, block.mixer, normed, common)
            hidden = graph.node("Add", [hidden, mixed], f"layers.{index}.mixed")
            normed = self._norm(block.post_norm, block.post_norm_bias, hidden)
            gate, up = (self._linear(weight, normed) for weight in (block.mlp.gate, block.mlp.up))
            inner = gated(graph, f"layers.{index}.mlp", gate, up)
            hidden = graph.node("Add", [hidden, self._linear(block.mlp.down, inner)], f"layers.{index}.out")
        assert decoder.final_norm_bias is not None
        normed = self._norm(decoder.final_norm, decoder.final_norm_bias, hidden)
        self._linear(decoder.lm_head, normed, output="logits")
        return graph.model(*signature(decoder))

    def _mix(self, index: int, mixer: Mixer, x: str, common: Common) -> str:
        if isinstance(mixer, Mamba):
            return mamba(self._graph, index, mixer, x, common)
        if isinstance(mixer, GatedMemory):
            return gated_memory(self._graph, f"layers.{index}.memory", mixer, x, common)
        return differential(self._graph, index, mixer, x, common)

    def _norm(self, gain: Weight, bias: Weight, x: str) -> str:
        inputs = [x, self._vector(gain), self._vector(bias)]
        return self._graph.node(
            "LayerNormalization", inputs, f"{gain.name}.out", axis=-1, epsilon=self._decoder.norm_eps
        )

    def _vector(self, weight: Weight) -> str:
        return self._graph.external(self._stored[weight.name].tensors[0])

    def _linear(
        self, weight: Weight, x: str, bias: Weight | None = None, *, output: str | None = None
    ) -> str:
        stored = self._stored[weight.name]
        return linear(
            self._graph,
            stored,
            x,
            output or f"{stored.name}.out",
            bias="" if bias is None else self._vector(bias),
            accuracy_level=self._accuracy_level,
        )


def signature(decoder: HybridDecoder) -> tuple[list[onnx.ValueInfoProto], list[onnx.ValueInfoProto]]:
    """Inputs and outputs of the graph."""
    kv_heads, head_dim = decoder.attention.kv_heads, decoder.attention.head_dim

    def info(name: str, kind: int, shape: list[str | int]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, shape)

    def carried(prefix: str, length: str) -> list[onnx.ValueInfoProto]:
        found = []
        for index, block in enumerate(decoder.blocks):
            mixer = block.mixer
            shapes: dict[str, list[str | int]] = {}
            if isinstance(mixer, Mamba):
                shapes = {
                    "conv_state": ["batch", mixer.taps - 1, mixer.width],
                    "recurrent_state": ["batch", 1, mixer.width, mixer.states],
                }
            elif isinstance(mixer, DifferentialAttention) and mixer.k is not None:
                # A windowed cache and the whole one have lengths of their own.
                shapes = {part: ["batch", kv_heads, f"{length}_{index}", 2 * head_dim] for part in KV}
            found += [
                info(f"{prefix}.{index}.{part}", TensorProto.FLOAT, shape) for part, shape in shapes.items()
            ]
        return found

    inputs = [
        info("input_ids", TensorProto.INT64, ["batch", "tokens"]),
        info("attention_mask", TensorProto.INT64, ["batch", "total"]),
        *carried("past_key_values", "past"),
    ]
    logits = info("logits", TensorProto.FLOAT, ["batch", "tokens", decoder.vocab_size])
    return inputs, [logits, *carried("present", "present")]

"""Constants of a DirectML variant, from its graph and genai_config.json, beside what the decoder says they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnx

from converters.decoder import Decoder
from converters.onnx.dml.config import dml_config
from converters.onnx.dml.layout import zero_points
from converters.onnx.facts import at_path, attribute, config_facts
from converters.onnx.genai_config import CONFIG_FILE
from converters.onnx.layout import Layout
from converters.verify import Fact

_NORMS = ("SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization")


def graph_facts(graph: onnx.GraphProto, decoder: Decoder, layout: Layout) -> Iterator[Fact]:
    """Attributes of every attention, rotation and norm, and that every product in blocks has its zero points."""
    attention, layers = decoder.attention, len(decoder.layers)
    epsilon = {"epsilon": float(decoder.norm_eps)}
    wanted: dict[str, tuple[int, dict[str, Any]]] = {
        "GroupQueryAttention": (
            layers,
            {
                "num_heads": attention.heads,
                "kv_num_heads": attention.kv_heads,
                "scale": float(attention.scale),
                "do_rotary": 0,
                "local_window_size": None,
            },
        ),
        "RotaryEmbedding": (2 * layers, {"rotary_embedding_dim": decoder.rope.dim, "interleaved": 0}),
        "SimplifiedLayerNormalization": (1, epsilon),
        "SkipSimplifiedLayerNormalization": (2 * layers, epsilon),
    }
    for op, (count, attributes) in wanted.items():
        nodes = [node for node in graph.node if node.op_type == op]
        yield Fact(f"number of {op} nodes", len(nodes), count)
        for node in nodes:
            for key, value in attributes.items():
                yield Fact(f"{node.name} {key}", attribute(node, key), value)
    found = {node.input[1]: list(node.input) for node in graph.node if node.op_type == "MatMulNBits"}
    for stored in layout.stored:
        if (zeros := zero_points(stored, decoder)) is not None:
            inputs = found.get(stored.tensors[0].name, [])
            yield Fact(f"{stored.name}: zero points", inputs[3] if len(inputs) > 3 else None, zeros.name)


def settings_facts(config: dict[str, Any], decoder: Decoder, context_length: int) -> Iterator[Fact]:
    """Of genai_config.json: what the CPU variant has too, the provider, and the graph's inputs."""
    yield from config_facts(config, decoder, context_length)
    expected = dml_config(decoder, context_length)
    for key in ("model.decoder.session_options.provider_options", "model.decoder.inputs"):
        yield Fact(f"{CONFIG_FILE}: {key}", at_path(config, key), at_path(expected, key))

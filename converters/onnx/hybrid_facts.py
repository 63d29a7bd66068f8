"""Constants of a hybrid's graph and of its genai_config.json, beside what the decoder says they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx

from converters.hybrid import SUB_NORM_EPS, DifferentialAttention, HybridDecoder, Mamba
from converters.onnx.facts import at_path, attribute, common_config
from converters.onnx.genai_config import CACHE_SLACK, CONFIG_FILE, windowed_layers
from converters.verify import Fact


def hybrid_graph_facts(graph: onnx.GraphProto, decoder: HybridDecoder, context_length: int) -> Iterator[Fact]:
    """Attributes of every attention, norm and scan, and the constants of differential attention."""
    nodes = {node.name: node for node in graph.node}
    mixers = [block.mixer for block in decoder.blocks]
    counts = {
        "GroupQueryAttention": sum(isinstance(mixer, DifferentialAttention) for mixer in mixers),
        "Scan": sum(isinstance(mixer, Mamba) for mixer in mixers),
        "CausalConvWithState": sum(isinstance(mixer, Mamba) for mixer in mixers),
        "LayerNormalization": 2 * decoder.depth + 1,
    }
    for op, expected in counts.items():
        found = [node for node in graph.node if node.op_type == op]
        yield Fact(f"number of {op} nodes", len(found), expected)
        for node in found if op == "LayerNormalization" else []:
            yield Fact(f"{node.name} epsilon", attribute(node, "epsilon"), float(decoder.norm_eps))
    constants = {
        t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer if t.data_type == 1 and not t.dims
    }
    for index, mixer in enumerate(mixers):
        if isinstance(mixer, DifferentialAttention):
            yield from _attention(
                f"layers.{index}.attention", nodes, constants, mixer, decoder, context_length
            )


def _attention(
    name: str,
    nodes: dict[str, onnx.NodeProto],
    constants: dict[str, Any],
    mixer: DifferentialAttention,
    decoder: HybridDecoder,
    context_length: int,
) -> Iterator[Fact]:
    windowed = mixer.window is not None and mixer.window < context_length
    expected = {
        "num_heads": decoder.attention.heads,
        "kv_num_heads": decoder.attention.kv_heads,
        "scale": float(decoder.attention.scale),
        "local_window_size": mixer.window if windowed else -1,
        "sliding_window_cache": int(windowed),
        "do_rotary": 0,
    }
    node = nodes.get(f"/{name}.attended", onnx.NodeProto())
    for key, value in expected.items():
        yield Fact(f"{name}: {key}", attribute(node, key), value)
    normed = nodes.get(f"/{name}.normed", onnx.NodeProto())
    yield Fact(f"{name}: epsilon", attribute(normed, "epsilon"), SUB_NORM_EPS)
    for key, value in (("start", mixer.start), ("shrink", 1 - mixer.start)):
        found = constants.get(f"{name}.{key}", np.float32(np.nan))
        yield Fact(f"{name}: {key}", float(found), float(value))


def hybrid_config_facts(
    config: dict[str, Any], decoder: HybridDecoder, context_length: int
) -> Iterator[Fact]:
    """Keys of genai_config.json by which onnxruntime-genai runs the graph and stops."""
    windows = windowed_layers(decoder, context_length)
    expected: dict[str, Any] = {
        **common_config(decoder, context_length),
        "model.type": "phi",
        "model.decoder.head_size": 2 * decoder.attention.head_dim,
        "model.decoder.num_hidden_layers": decoder.depth,
        "model.decoder.inputs.past_recurrent_names": "past_key_values.%d.recurrent_state",
        "model.decoder.sliding_window.layers": windows or None,
        "model.decoder.sliding_window.window_size": decoder.attention.window if windows else None,
        "model.decoder.sliding_window.cache_slack": CACHE_SLACK if windows else None,
    }
    for key, value in expected.items():
        yield Fact(f"{CONFIG_FILE}: {key}", at_path(config, key), value)

"""Constants of an ONNX variant, from its graph and genai_config.json, beside what the decoder says they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnx

from converters.decoder import Decoder, Experts, RoutedMlp
from converters.onnx.experts import SWIGLU, TOLERANCE
from converters.onnx.factored import factored_facts
from converters.onnx.genai_config import CONFIG_FILE
from converters.onnx.limits import REREAD_AT, fused_rotary
from converters.onnx.padded_heads import cached_head_dim
from converters.onnx.parts import NORMS
from converters.onnx.routed import routed_facts
from converters.onnx.sparse_facts import sparse_facts
from converters.verify import Fact


def graph_facts(graph: onnx.GraphProto, decoder: Decoder, context_length: int) -> Iterator[Fact]:
    """Attributes of every attention and norm, and where LongRoPE switches tables."""
    attention, window = decoder.attention, decoder.attention.window
    bounded = window is not None and window < context_length
    dense = sum(layer.sparse is None for layer in decoder.layers)
    attends = [node for node in graph.node if node.op_type == "GroupQueryAttention"]
    kind = NORMS[decoder.norm]
    norms = [node for node in graph.node if node.op_type in (kind, f"Skip{kind}")]
    yield Fact("number of GroupQueryAttention nodes", len(attends), dense)
    yield from sparse_facts(graph, decoder, context_length)
    yield Fact("number of norm nodes", len(norms), 2 * len(decoder.layers) + 1)
    expected = {
        "num_heads": attention.heads,
        "kv_num_heads": attention.kv_heads,
        "scale": float(attention.scale),
        "local_window_size": window if bounded else -1,
        "do_rotary": int(fused_rotary(decoder)),
    }
    for node in attends:
        for key, value in expected.items():
            yield Fact(f"{node.name} {key}", attribute(node, key), value)
    for node in norms:
        yield Fact(f"{node.name} epsilon", attribute(node, "epsilon"), float(decoder.norm_eps))
    yield from _expert_facts(graph, decoder)
    yield from factored_facts(graph, decoder)
    yield from routed_facts(graph, decoder)
    original = decoder.rope.original_context
    long = decoder.rope.is_longrope and context_length > original
    yield Fact("LongRoPE switch and long_offset", table_switch(graph), (original, original) if long else None)


def _expert_facts(graph: onnx.GraphProto, decoder: Decoder) -> Iterator[Fact]:
    """Attributes of every mixture of experts, and the tolerance of its routing."""
    layers = [layer.mlp for layer in decoder.layers if isinstance(layer.mlp, Experts)]
    mixtures = [node for node in graph.node if node.op_type in ("MoE", "QMoE")]
    routed = sum(isinstance(layer.mlp, RoutedMlp) for layer in decoder.layers)
    yield Fact("number of MoE and QMoE nodes", len(mixtures), len(layers) + routed)
    for node in mixtures:
        # An MoE of one expert has its weight normalized to 1.
        one = {"normalize_routing_weights": 1} if routed else {}
        weighed = {"normalize_routing_weights": 0} if node.op_type == "QMoE" else one
        expected = SWIGLU | {"k": 1 if routed else 2} | weighed
        for key, value in expected.items():
            found = attribute(node, key)
            yield Fact(f"{node.name} {key}", found.decode() if isinstance(found, bytes) else found, value)
    if layers:
        tolerance = [onnx.numpy_helper.to_array(t).item() for t in graph.initializer if t.name == TOLERANCE]
        yield Fact(TOLERANCE, tolerance[0] if tolerance else None, layers[0].tolerance)
        tested = [node.input[1] for node in graph.node if node.op_type == "Greater"].count(TOLERANCE)
        yield Fact(f"comparisons with {TOLERANCE}", tested, 2 * len(layers))


def config_facts(config: dict[str, Any], decoder: Decoder, context_length: int) -> Iterator[Fact]:
    """Keys of genai_config.json by which onnxruntime-genai runs the graph and stops."""
    long = decoder.rope.is_longrope and context_length > decoder.rope.original_context
    expected: dict[str, Any] = {
        **common_config(decoder, context_length),
        # Only some types compute the cache anew where LongRoPE switches (generators.cpp).
        "model.type": REREAD_AT.get(decoder.rope.original_context, "phi3") if long else "phi",
        "model.decoder.head_size": cached_head_dim(decoder),
        "model.decoder.num_hidden_layers": len(decoder.layers),
    }
    for key, value in expected.items():
        yield Fact(f"{CONFIG_FILE}: {key}", at_path(config, key), value)


def common_config(decoder: Decoder, context_length: int) -> dict[str, Any]:
    """What genai_config.json says of a decoder of any kind."""
    return {
        "model.bos_token_id": decoder.bos_token_id,
        "model.eos_token_id": list(decoder.eos_token_ids),
        "model.vocab_size": decoder.vocab_size,
        "model.context_length": context_length,
        "model.decoder.hidden_size": decoder.hidden_size,
        "model.decoder.num_attention_heads": decoder.attention.heads,
        "model.decoder.num_key_value_heads": decoder.attention.kv_heads,
        "search.max_length": context_length,
    }


def at_path(config: dict[str, Any], path: str) -> Any:
    """What stands under keys with dots between them; None when nothing does."""
    found: Any = config
    for part in path.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def table_switch(graph: onnx.GraphProto) -> tuple[int, int] | None:
    """(switch, long_offset): beyond a length of `switch`, rotary rows begin at `long_offset`. None: one table."""
    scalars = {t.name: t for t in graph.initializer if t.data_type == onnx.TensorProto.INT64 and not t.dims}
    limits = [node.input[1] for node in graph.node if node.op_type == "Greater"]
    offsets = [node.input[1] for node in graph.node if node.op_type == "Where"]
    if not limits or not offsets or limits[0] not in scalars or offsets[0] not in scalars:
        return None
    switch, offset = (onnx.numpy_helper.to_array(scalars[name]).item() for name in (limits[0], offsets[0]))
    return int(switch), int(offset)


def attribute(node: onnx.NodeProto, name: str) -> Any:
    """None when the node has no such attribute."""
    return next((onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name), None)

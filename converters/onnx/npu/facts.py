"""Constants of an NPU variant, from its graphs and genai_config.json, beside what the decoder says they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnx

from converters.decoder import Decoder
from converters.onnx.facts import attribute, config_facts
from converters.onnx.genai_config import CONFIG_FILE
from converters.onnx.npu.config import PIPELINE_TYPE, npu_config
from converters.onnx.npu.limits import cache_length
from converters.verify import Fact


def npu_facts(
    graphs: dict[str, onnx.GraphProto], config: dict[str, Any], decoder: Decoder, context_length: int
) -> Iterator[Fact]:
    """Of both NPU stages, and every key of the config by which the engine runs them."""
    window = _key(config, "model.decoder.sliding_window.window_size")
    whole = window if isinstance(window, int) and window > 0 else 1
    cache = cache_length(context_length, whole)
    yield from stage_facts("context", graphs["context.onnx"], decoder, whole, cache)
    yield from stage_facts("iterator", graphs["iterator.onnx"], decoder, 1, cache)
    special = {"model.type": PIPELINE_TYPE}
    for fact in config_facts(config, decoder, cache):
        key = fact.key.removeprefix(f"{CONFIG_FILE}: ")
        yield Fact(fact.key, fact.found, special.get(key, fact.expected))
    expected = npu_config(decoder, cache, whole)
    for key in ("model.pad_token_id", "model.decoder.inputs", "model.decoder.sliding_window"):
        yield Fact(f"{CONFIG_FILE}: {key}", _key(config, key), _key(expected, key))


def stage_facts(
    name: str, graph: onnx.GraphProto, decoder: Decoder, tokens: int, cache: int
) -> Iterator[Fact]:
    """Attributes of every attention, rotation and norm, and the static shapes."""
    attention, partial = decoder.attention, decoder.rope.dim < decoder.attention.head_dim
    by_type: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        by_type.setdefault(node.op_type, []).append(node)
    layers = len(decoder.layers)
    wanted: dict[str, tuple[int, dict[str, Any]]] = {
        "GroupQueryAttention": (
            layers,
            {
                "num_heads": attention.heads,
                "kv_num_heads": attention.kv_heads,
                "scale": float(attention.scale),
                "do_rotary": int(not partial),
            },
        ),
        "SimplifiedLayerNormalization": (2 * layers + 1, {"epsilon": float(decoder.norm_eps)}),
        "RotaryEmbedding": (
            2 * layers * partial,
            {"rotary_embedding_dim": decoder.rope.dim, "interleaved": 0},
        ),
    }
    for op, (count, attributes) in wanted.items():
        nodes = by_type.get(op, [])
        yield Fact(f"{name}: number of {op} nodes", len(nodes), count)
        for node in nodes:
            for key, value in attributes.items():
                yield Fact(f"{name}: {node.name} {key}", attribute(node, key), value)
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in graph.input}
    yield Fact(f"{name}: shape of hidden", shapes.get("hidden"), [1, tokens, decoder.hidden_size])
    for i in range(layers):
        for part in ("key", "value"):
            key = f"past_key_values.{i}.{part}"
            yield Fact(
                f"{name}: shape of {key}", shapes.get(key), [1, attention.kv_heads, cache, attention.head_dim]
            )


def _key(config: dict[str, Any], path: str) -> Any:
    found: Any = config
    for part in path.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found

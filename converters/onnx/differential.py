"""Differential attention as ONNX nodes: x [batch, tokens, hidden] to the same.

It is one GroupQueryAttention over heads twice as wide: queries and keys end in zeros, which change no score, and
both heads of a pair have the pair's whole value. A layer that reads another one's keys and values gives the kernel
none of its own, and the other's present cache as the past.
"""

from __future__ import annotations

import numpy as np

from converters.hybrid import SUB_NORM_EPS, DifferentialAttention
from converters.onnx.graph import MICROSOFT, Graph
from converters.onnx.hybrid_common import Common


def differential(graph: Graph, index: int, mixer: DifferentialAttention, x: str, common: Common) -> str:
    """KV cache `past_key_values.N.key/value` [batch, kv_heads, positions, 2 head_dim] where the layer has its own."""
    name, attention = f"layers.{index}.attention", common.attention
    size, group = attention.head_dim, attention.heads // attention.kv_heads
    flat = graph.constant("flat", [0, 0, -1])
    by_head = graph.constant("by_head", [0, 0, -1, size])
    zeros = graph.constant("head_padding", [0] * 7 + [size])

    def widened(heads: str) -> str:
        split = graph.node("Reshape", [heads, by_head], f"{heads}.heads")
        padded = graph.node("Pad", [split, zeros], f"{heads}.padded")
        return graph.node("Reshape", [padded, flat], f"{heads}.wide")

    query = widened(common.linear(mixer.q, x, mixer.q_bias))
    present: list[str] = []
    if mixer.k is not None and mixer.v is not None:
        value = common.linear(mixer.v, x, mixer.v_bias)
        pairs = graph.constant("value_pairs", [0, 0, attention.kv_heads // 2, 1, 2 * size])
        value = graph.node("Reshape", [value, pairs], f"{name}.v.pairs")
        value = graph.node("Concat", [value, value], f"{name}.v.twice", axis=3)
        common.keys = key = widened(common.linear(mixer.k, x, mixer.k_bias))
        common.values = value = graph.node("Reshape", [value, flat], f"{name}.v.wide")
        common.owner = index
        past = [f"past_key_values.{index}.{part}" for part in ("key", "value")]
        present = [f"present.{index}.{part}" for part in ("key", "value")]
    else:
        none = graph.constant("none", [0])
        token_axis = graph.constant("token_axis", [1])
        key = graph.node("Slice", [common.keys, none, none, token_axis], f"{name}.no_keys")
        value = graph.node("Slice", [common.values, none, none, token_axis], f"{name}.no_values")
        past = [f"present.{common.owner}.{part}" for part in ("key", "value")]
    windowed = mixer.window is not None and mixer.window < common.context_length
    attended = graph.node(
        "GroupQueryAttention",
        [query, key, value, *past, common.lengths, common.total],
        [f"{name}.attended", *present],
        domain=MICROSOFT,
        num_heads=attention.heads,
        kv_num_heads=attention.kv_heads,
        scale=attention.scale,
        local_window_size=mixer.window if windowed else -1,
        sliding_window_cache=int(windowed),
        do_rotary=0,
    )
    sides = graph.constant("attention_sides", [0, 0, attention.kv_heads // 2, 2, group * 2 * size])
    both = graph.node("Reshape", [attended, sides], f"{name}.sides")
    graph.node(
        "Split", [both, graph.constant("one_each", [1, 1])], [f"{name}.first", f"{name}.second"], axis=3
    )
    second = graph.node("Mul", [f"{name}.second", _factor(graph, name, mixer, common)], f"{name}.subtracted")
    mixed = graph.node("Sub", [f"{name}.first", second], f"{name}.difference")
    wide = graph.constant("by_wide_head", [0, 0, -1, 2 * size])
    mixed = graph.node("Reshape", [mixed, wide], f"{name}.by_head")
    shrink = graph.constant(f"{name}.shrink", np.array(1 - mixer.start, np.float32))
    gain = graph.node("Mul", [common.vector(mixer.sub_norm), shrink], f"{name}.gain")
    mixed = graph.node(
        "SimplifiedLayerNormalization",
        [mixed, gain],
        f"{name}.normed",
        axis=-1,
        epsilon=SUB_NORM_EPS,
        stash_type=1,
    )
    return common.linear(mixer.o, graph.node("Reshape", [mixed, flat], f"{name}.mixed"), mixer.o_bias)


def _factor(graph: Graph, name: str, mixer: DifferentialAttention, common: Common) -> str:
    """exp(q1 . k1) - exp(q2 . k2) + start: of weights alone, so that onnxruntime folds it when it loads."""
    graph.constant("first_axis", [0])
    exps = []
    for i, (q, k) in enumerate((mixer.lambdas[:2], mixer.lambdas[2:]), 1):
        product = graph.node("Mul", [common.vector(q), common.vector(k)], f"{name}.lambda{i}.product")
        total = graph.node("ReduceSum", [product, "first_axis"], f"{name}.lambda{i}.sum", keepdims=0)
        exps.append(graph.node("Exp", [total], f"{name}.lambda{i}"))
    difference = graph.node("Sub", exps, f"{name}.lambda_difference")
    start = graph.constant(f"{name}.start", np.array(mixer.start, np.float32))
    return graph.node("Add", [difference, start], f"{name}.factor")

"""What mixes tokens in a hybrid decoder, as ONNX nodes: each takes x [batch, tokens, hidden] and gives the same.

A state space layer is a depthwise convolution with a carry (CausalConvWithState) and a Scan over the tokens: its
state stays float32 [channels, states], and nothing of that size is made for every token. (LinearAttention with the
rule "gated" computes the same; benchmarks/flash.md compares them.)

Differential attention is one GroupQueryAttention over heads twice as wide: queries and keys end in zeros, which
change no score, and both heads of a pair have the pair's whole value. A layer that reads another one's keys and
values gives the kernel none of its own, and its present cache as the past.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from converters.decoder import Attention, Weight
from converters.hybrid import SUB_NORM_EPS, DifferentialAttention, GatedMemory, Mamba
from converters.onnx.graph import MICROSOFT, Graph

Linear = Callable[[Weight, str, Weight | None], str]
"""(weight, x, bias) -> the name of the product."""
Vector = Callable[[Weight], str]


@dataclass
class Common:
    """What the mixers share: how weights are multiplied by and named, lengths, and what one layer leaves to others.

    memory: y of the last Mamba layer. keys, values: the new ones of the last layer that made some, and `owner`
    its index.
    """

    linear: Linear
    vector: Vector
    attention: Attention
    lengths: str
    total: str
    context_length: int
    memory: str = ""
    keys: str = ""
    values: str = ""
    owner: int = 0


def silu(graph: Graph, x: str) -> str:
    return graph.node("Mul", [x, graph.node("Sigmoid", [x], f"{x}.sigmoid")], f"{x}.silu")


def gated_memory(graph: Graph, name: str, mixer: GatedMemory, x: str, common: Common) -> str:
    gate = silu(graph, common.linear(mixer.gate, x, None))
    return common.linear(mixer.out, graph.node("Mul", [gate, common.memory], f"{name}.gated"), None)


def mamba(graph: Graph, index: int, mixer: Mamba, x: str, common: Common) -> str:
    """States `past_key_values.N.conv_state` [batch, taps - 1, width] and `.recurrent_state` [batch, 1, width,
    states]."""
    name = f"layers.{index}.mamba"
    halves = graph.constant("mamba_halves", [mixer.width, mixer.width])
    graph.node("Split", [common.linear(mixer.inputs, x, None), halves], [f"{name}.u0", f"{name}.z"], axis=-1)
    past, present = (f"{when}.{index}" for when in ("past_key_values", "present"))
    u = graph.node(
        "CausalConvWithState",
        [f"{name}.u0", common.vector(mixer.conv), common.vector(mixer.conv_bias), f"{past}.conv_state"],
        [f"{name}.u", f"{present}.conv_state"],
        domain=MICROSOFT,
        activation="silu",
        channels_last=1,
    )
    parts = graph.constant("mamba_selected", [mixer.step_rank, mixer.states, mixer.states])
    graph.node(
        "Split",
        [common.linear(mixer.selection, u, None), parts],
        [f"{name}.step0", f"{name}.B", f"{name}.C"],
        axis=-1,
    )
    step = graph.node(
        "Softplus", [common.linear(mixer.step, f"{name}.step0", mixer.step_bias)], f"{name}.delta"
    )
    rate = graph.node("Neg", [graph.node("Exp", [common.vector(mixer.decay)], f"{name}.exp")], f"{name}.A")
    graph.constant("outer_axes", [1, 3])
    graph.constant("inner_axes", [1, 2])
    graph.node(
        "Scan",
        [f"{past}.recurrent_state", step, u, f"{name}.B", f"{name}.C"],
        [f"{present}.recurrent_state", f"{name}.scanned"],
        body=one_token(name, rate),
        num_scan_inputs=4,
        scan_input_axes=[1] * 4,
        scan_output_axes=[1],
    )
    skipped = graph.node("Mul", [u, common.vector(mixer.skip)], f"{name}.skipped")
    common.memory = graph.node("Add", [f"{name}.scanned", skipped], f"{name}.y")
    gated = graph.node("Mul", [common.memory, silu(graph, f"{name}.z")], f"{name}.gated")
    return common.linear(mixer.out, gated, None)


def one_token(name: str, rate: str) -> onnx.GraphProto:
    """state = exp(d A) state + d u B; y = state C, with state [batch, 1, width, states], d and u [batch, width], B and
    C [batch, states]."""
    nodes: list[onnx.NodeProto] = []

    def node(op: str, *inputs: str, out: str) -> str:
        nodes.append(helper.make_node(op, inputs, [f"{name}.scan.{out}"], name=f"/{name}.scan.{out}"))
        return f"{name}.scan.{out}"

    state, d, u, enter, leave = (f"{name}.scan.{value}" for value in ("state", "d", "u", "B", "C"))
    kept = node(
        "Exp", node("Mul", node("Unsqueeze", d, "outer_axes", out="d_wide"), rate, out="dA"), out="keep"
    )
    added = node("Unsqueeze", node("Mul", d, u, out="du"), "outer_axes", out="du_wide")
    added = node("Mul", added, node("Unsqueeze", enter, "inner_axes", out="B_wide"), out="added")
    new = node("Add", node("Mul", kept, state, out="kept"), added, out="new")
    read = node("MatMul", new, node("Unsqueeze", leave, "outer_axes", out="C_wide"), out="read")
    y = node("Squeeze", read, "outer_axes", out="y")

    def infos(*names: str) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(each, TensorProto.FLOAT, None) for each in names]

    return helper.make_graph(nodes, f"{name}.scan", infos(state, d, u, enter, leave), infos(new, y))


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

"""State space layers and Gated Memory Units as ONNX nodes: each takes x [batch, tokens, hidden] and gives the same.

A state space layer is a depthwise convolution with a carry (CausalConvWithState) and a Scan over the tokens: its
state stays float32 [channels, states], and nothing of that size is made for every token. (LinearAttention with the
rule "gated" computes the same; benchmarks/flash.md compares them.)
"""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from converters.hybrid import GatedMemory, Mamba
from converters.onnx.graph import MICROSOFT, Graph
from converters.onnx.hybrid_common import Common


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

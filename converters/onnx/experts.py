"""A mixture of experts in the graph: SparseMixer's routing in plain operators, the experts in one fused one.

onnxruntime's QMoE and MoE have a `use_sparse_mixer`, which their CPU kernels accept and ignore. What they do take is
any weights that the graph has computed: QMoE as an input of its own (`router_weights`), MoE as scores whose softmax
is in proportion to them, and their sum as a factor afterwards. Both are exact (tests/converters/test_onnx_moe.py).
QMoE's kernel takes one number of bits for a layer; at 8 bits it rounds activations to int8 whatever it is told.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from converters.decoder import Experts
from converters.onnx.graph import MICROSOFT, Graph
from converters.onnx.parts import float32
from converters.onnx.tensors import Stored
from quant.blocks import BLOCK

TOLERANCE = "moe.tolerance"
SWIGLU = {
    "activation_type": "swiglu",
    # Gate and up rows in turn: the only layout that the CPU kernels have.
    "swiglu_fusion": 1,
    "activation_alpha": 1.0,
    "activation_beta": 0.0,
}


def route(graph: Graph, name: str, scores: str, mlp: Experts) -> str:
    """scores [..., experts] -> weights float32 [tokens, experts], zero but for a token's two experts. ValueError for
    a routing other than SparseMixer."""
    if mlp.routing != "sparsemixer":
        raise ValueError(f"{mlp.router.name} routes by {mlp.routing}")
    graph.constant("moe.last_axis", [-1])
    graph.constant("moe.experts", np.arange(len(mlp.experts)))
    graph.constant("moe.out", np.array(-np.inf, np.float32))
    graph.constant("moe.none", np.array(0, np.float32))
    graph.constant(TOLERANCE, np.array(mlp.tolerance, np.float32))
    by_token = graph.constant("moe.by_token", [-1, len(mlp.experts)])
    scores = graph.node("Reshape", [scores, by_token], f"{name}.scores")
    sizes = graph.node("Abs", [scores], f"{name}.sizes")
    best, share = _weigh(graph, f"{name}.first", scores, scores, sizes)
    left = graph.node("Where", [best, "moe.out", scores], f"{name}.left")
    second, second_share = _weigh(graph, f"{name}.second", left, scores, sizes)
    rest = graph.node("Where", [second, second_share, "moe.none"], f"{name}.second.weight")
    return graph.node("Where", [best, share, rest], f"{name}.weights")


def _weigh(graph: Graph, name: str, left: str, scores: str, sizes: str) -> tuple[str, str]:
    """(who is best of those `left`, bool; everybody's share, of which that of the best counts), [tokens, experts]."""
    index = graph.node("ArgMax", [left], f"{name}.index", axis=-1, keepdims=1)
    best = graph.node("Equal", [index, "moe.experts"], f"{name}.is_best")
    top = graph.node("ReduceMax", [left, "moe.last_axis"], f"{name}.top", keepdims=1)
    distance = graph.node("Sub", [top, scores], f"{name}.distance")
    size = graph.node("Max", [sizes, top], f"{name}.size")
    relative = graph.node("Div", [distance, size], f"{name}.relative")
    far = graph.node("Greater", [relative, TOLERANCE], f"{name}.far")
    kept = graph.node("Where", [far, "moe.out", left], f"{name}.kept")
    return best, graph.node("Softmax", [kept], f"{name}.share", axis=-1)


def mix(
    graph: Graph,
    name: str,
    x: str,
    weights: str,
    stored: Sequence[Stored],
    accuracy_level: int,
    *,
    k: int = 2,
) -> str:
    """The weighted sum of each token's `k` experts, of the shape of `x`; of 1, whose weight is 1, its output.

    `stored`: gates and ups in turn, and downs.
    """
    gate_up, down = stored
    output = f"{name}.out"
    if gate_up.format is None or down.format is None:
        if k == 1:
            first, second = (_float(graph, each) for each in stored)
            inputs = [x, weights, first, "", second]
            # The softmax of the one that is chosen, over itself.
            return graph.node(
                "MoE", inputs, output, domain=MICROSOFT, k=k, normalize_routing_weights=1, **SWIGLU
            )
        # softmax(log w) is w / sum(w) where only the chosen have a logarithm.
        logarithms = graph.node("Log", [weights], f"{name}.log")
        sums = graph.node("ReduceSum", [weights, "moe.last_axis"], f"{name}.sum", keepdims=1)
        first, second = (_float(graph, each) for each in stored)
        inputs = [x, logarithms, first, "", second]
        mixed = graph.node("MoE", inputs, f"{name}.mixed", domain=MICROSOFT, k=k, **SWIGLU)
        shape = graph.node("Shape", [x], f"{name}.shape", end=2)
        shape = graph.node("Concat", [shape, graph.constant("one_axis", [1])], f"{name}.sum.shape", axis=0)
        factor = graph.node("Reshape", [sums, shape], f"{name}.factor")
        return graph.node("Mul", [mixed, factor], output)
    (w1, s1, z1), (w2, s2, z2) = (_blocks(graph, each) for each in stored)
    # The chosen are the only ones above zero: the operator's own choice among the weights is that choice.
    inputs = [x, weights, w1, s1, "", w2, s2, "", "", "", "", z1, z2, "", weights]
    return graph.node(
        "QMoE",
        inputs,
        output,
        domain=MICROSOFT,
        k=k,
        expert_weight_bits=gate_up.format.bits,
        block_size=BLOCK,
        normalize_routing_weights=0,
        weights_prepacked=0,
        accuracy_level=accuracy_level,
        **SWIGLU,
    )


def _blocks(graph: Graph, stored: Stored) -> tuple[str, str, str]:
    """Codes, scales and zero points (or none) with an axis for the experts."""
    names = []
    for tensor in stored.tensors:
        flat = tensor.row_bytes // tensor.dtype.itemsize
        names.append(graph.external(tensor, dims=(*_experts(stored), flat)))
    return names[0], names[1], names[2] if len(names) > 2 else ""


def _float(graph: Graph, stored: Stored) -> str:
    (tensor,) = stored.tensors
    return float32(graph, graph.external(tensor, dims=(*_experts(stored), stored.columns)), stored)


def _experts(stored: Stored) -> tuple[int, int]:
    """How many, and rows of each."""
    count = len(stored.weights) // stored.turns
    return count, stored.rows // count

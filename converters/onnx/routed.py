"""Hash routing in the graph: a token's expert is looked up by its id, and the fused operator computes that one alone.

One expert of weight exactly 1 needs no scores: the operator is given 1 for the token's expert and 0 for the others.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx

from converters.decoder import Decoder, RoutedMlp
from converters.onnx.graph import Graph
from converters.verify import Fact

IDS = "input_ids"


def route_ids(graph: Graph, name: str, table: str, experts: int) -> str:
    """float32 [tokens, experts], 1 for each token's expert and 0 elsewhere. `table`: float32 [vocabulary]."""
    numbers = graph.constant("moe.numbers", np.arange(experts, dtype=np.float32))
    expert = graph.node("Gather", [table, IDS], f"{name}.expert")
    column = graph.node("Reshape", [expert, graph.constant("moe.column", [-1, 1])], f"{name}.column")
    chosen = graph.node("Equal", [column, numbers], f"{name}.chosen")
    return graph.node("Cast", [chosen], f"{name}.weights", to=onnx.TensorProto.FLOAT)


def routed_facts(graph: onnx.GraphProto, decoder: Decoder) -> Iterator[Fact]:
    """Which table each layer's experts are looked up in, and by what."""
    mlps = [layer.mlp for layer in decoder.layers if isinstance(layer.mlp, RoutedMlp)]
    makers = {node.output[0]: node for node in graph.node}
    nodes = [node for node in graph.node if node.op_type in ("MoE", "QMoE")] if mlps else []
    for node, mlp in zip(nodes, mlps, strict=False):
        found, steps = node.input[1], ("Cast", "Equal", "Reshape", "Gather")
        for step in steps:
            maker = makers.get(found)
            if maker is None or maker.op_type != step:
                break
            found = maker.input[0]
            if step == "Gather":
                found = f"{maker.input[0]}[{maker.input[1]}]"
        yield Fact(f"{node.name} routing", found, f"{mlp.table.name}[{IDS}]")

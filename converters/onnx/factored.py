"""Linear layers in factors: two thin products, and a product of the rows that were kept, spread by one Gather.

Where no row was kept the Gather takes the output of a row of zeros: one more row is multiplied, and neither a Scatter
nor a tensor of zeros in the shape of the batch is needed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import onnx
from onnx import numpy_helper

from converters.decoder import Decoder, Factored, FactoredMlp
from converters.onnx.graph import Graph
from converters.verify import Fact


def add_rows(graph: Graph, layer: Factored, low_rank: str, sparse: str) -> str:
    """low_rank [.., out] plus sparse [.., kept + 1] at the outputs that have a row."""
    rows = graph.constant(rows_name(layer), layer.rows)
    spread = graph.node("Gather", [sparse, rows], f"{layer.sparse.name}.spread", axis=-1)
    return graph.node("Add", [low_rank, spread], f"{layer.sparse.name}.sum")


def halves(graph: Graph, name: str, both: str) -> tuple[str, str]:
    """(gate, up) of their common output."""
    gate, up = f"{name}.gate", f"{name}.up"
    graph.node("Split", [both], [gate, up], axis=-1, num_outputs=2)
    return gate, up


def rows_name(layer: Factored) -> str:
    return f"{layer.sparse.name}.rows"


def factored_facts(graph: onnx.GraphProto, decoder: Decoder) -> Iterator[Fact]:
    """Which row is added to which output, in every factored layer."""
    mlps = [layer.mlp for layer in decoder.layers if isinstance(layer.mlp, FactoredMlp)]
    layers = [each for mlp in mlps for each in (mlp.gate_up, mlp.down)]
    tables = {t.name: t for t in graph.initializer}
    used = [node.input[1] for node in graph.node if node.op_type == "Gather"]
    for layer in layers:
        name = rows_name(layer)
        found = numpy_helper.to_array(tables[name]) if name in tables and name in used else None
        yield Fact(name, None if found is None else _digest(found), _digest(np.asarray(layer.rows, np.int64)))


def _digest(rows: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> str:
    """Thousands of numbers, as a proof tells them."""
    return hashlib.sha256(rows.tobytes()).hexdigest()

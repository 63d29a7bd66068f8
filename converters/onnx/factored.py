"""Linear layers in factors: two thin products, and a product of the rows that were kept, spread by one Gather.

Where no row was kept the Gather takes the output of a row of zeros: one more row is multiplied, and neither a Scatter
nor a tensor of zeros in the shape of the batch is needed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from converters.decoder import Decoder, Weight
from converters.onnx.graph import Graph
from converters.verify import Fact


def add_rows(graph: Graph, weights: Sequence[Weight], low_rank: str, sparse: str) -> str:
    """low_rank [.., out] plus sparse [.., kept + 1] at the outputs that have a row; `weights` share their factors."""
    ((name, rows),) = row_tables(weights).items()
    sparse_name = name.removesuffix(".rows")
    spread = graph.node("Gather", [sparse, graph.constant(name, rows)], f"{sparse_name}.spread", axis=-1)
    return graph.node("Add", [low_rank, spread], f"{sparse_name}.sum")


def halves(graph: Graph, name: str, both: str) -> list[str]:
    """[gate, up] of their common output."""
    names = [f"{name}.gate", f"{name}.up"]
    graph.node("Split", [both], names, axis=-1, num_outputs=2)
    return names


def row_tables(weights: Iterable[Weight]) -> dict[str, list[int]]:
    """Of those in factors: name -> for every output of all that share a `sparse`, its row."""
    tables: dict[str, list[int]] = {}
    for weight in weights:
        if weight.factors:
            tables.setdefault(f"{weight.factors.sparse.name}.rows", []).extend(weight.factors.rows)
    return tables


def factored_facts(graph: onnx.GraphProto, decoder: Decoder) -> Iterator[Fact]:
    """Which row is added to which output, in every factored layer."""
    expected = row_tables(weight for layer in decoder.layers for weight in layer.handles())
    tables = {t.name: t for t in graph.initializer}
    used = [node.input[1] for node in graph.node if node.op_type == "Gather"]
    for name, rows in expected.items():
        found = numpy_helper.to_array(tables[name]) if name in tables and name in used else None
        yield Fact(name, None if found is None else _digest(found), _digest(np.asarray(rows, np.int64)))


def _digest(rows: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> str:
    """Thousands of numbers, as a proof tells them."""
    return hashlib.sha256(rows.tobytes()).hexdigest()

"""Phi-3-small's constants in a graph: the blocks that are visible, GEGELU's limits, scales and the tokens that are
none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx

from converters.decoder import UNUSED_LOGIT, Decoder, GegeluMlp
from converters.onnx.sparse import COLUMNS, ROWS, block_table
from converters.verify import Fact


def sparse_facts(graph: onnx.GraphProto, decoder: Decoder, context_length: int) -> Iterator[Fact]:
    """None for a decoder that has nothing of it."""
    layers = [layer.sparse for layer in decoder.layers if layer.sparse]
    nodes = [node for node in graph.node if node.op_type == "SparseAttention"]
    yield Fact("number of SparseAttention nodes", len(nodes), len(layers))
    constants = {
        tensor.name: onnx.numpy_helper.to_array(tensor)
        for tensor in graph.initializer
        if tensor.data_location != onnx.TensorProto.EXTERNAL
    }
    if layers:
        tables = block_table(layers[0], decoder.attention.heads, context_length)
        for name, expected in zip((ROWS, COLUMNS), tables, strict=True):
            yield Fact(f"{name} as the model has them", _equal(constants.get(name), expected), True)
    for node, sparse in zip(nodes, layers, strict=False):
        found = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
        wanted = {
            "num_heads": decoder.attention.heads,
            "kv_num_heads": decoder.attention.kv_heads,
            "scale": float(decoder.attention.scale),
            "sparse_block_size": sparse.block,
            "do_rotary": 0,
        }
        for key, value in wanted.items():
            yield Fact(f"{node.name} {key}", found.get(key), value)
    yield from _scalars(constants, decoder)


def _scalars(constants: dict[str, Any], decoder: Decoder) -> Iterator[Fact]:
    expected: dict[str, float] = {}
    limits = {layer.mlp.limit for layer in decoder.layers if isinstance(layer.mlp, GegeluMlp)}
    for limit in limits:
        expected |= {"gegelu_limit": limit, "gegelu_least": -limit, "gegelu_one": 1.0}
    if decoder.embedding_scale != 1:
        expected["embedding_scale"] = decoder.embedding_scale
    if decoder.logit_scale != 1:
        expected["logit_scale"] = decoder.logit_scale
    for name, value in expected.items():
        found = constants.get(name)
        yield Fact(name, None if found is None else float(found), float(value))
    if decoder.unused_tokens:
        found = constants.get("unused_tokens")
        yield Fact("unused_tokens", None if found is None else tuple(found.tolist()), decoder.unused_tokens)
        low = constants.get("unused_logits", np.zeros(1))
        yield Fact("unused_logits are the lowest", bool((low == UNUSED_LOGIT).all()), True)


def _equal(found: Any, expected: Any) -> bool:
    return found is not None and np.array_equal(found, expected)

"""Phi-3-small's parts of the graph: block-sparse attention, GEGELU, and what is done to the logits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from converters.decoder import UNUSED_LOGIT, Attention, BlockSparse, Decoder, GegeluMlp
from converters.onnx.graph import MICROSOFT, Graph

ROWS, COLUMNS = "block_rows", "block_columns"


def block_table(
    sparse: BlockSparse, heads: int, context_length: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """(row indices [layouts, blocks + 1], column indices [layouts, most]) of the visible blocks, as SparseAttention
    wants them: head h has layout h % layouts, short rows of columns end in -1."""
    blocks = -(-context_length // sparse.block)
    positions = np.arange(blocks)
    near = (positions[:, None] - positions < sparse.local) & (positions[:, None] >= positions)
    rows, columns = [], []
    for head in range(_layouts(sparse, heads)):
        vertical = (positions + 1 + head * sparse.step) % sparse.stride == 0
        visible = near | (vertical & (positions[:, None] >= positions))
        rows.append(np.concatenate([[0], np.cumsum(visible.sum(axis=1))]))
        columns.append(np.nonzero(visible)[1])
    table = np.full((len(columns), max(map(len, columns))), -1, np.int32)
    for row, found in zip(table, columns, strict=True):
        row[: len(found)] = found
    return np.array(rows, np.int32), table


def _layouts(sparse: BlockSparse, heads: int) -> int:
    """Head h sees what head h + stride sees."""
    if sparse.step == 0:
        return 1
    return sparse.stride if sparse.step == 1 and heads % sparse.stride == 0 else heads


def attend_sparse(
    graph: Graph,
    name: str,
    sparse: BlockSparse,
    attention: Attention,
    context_length: int,
    inputs: Sequence[str],
    cache: tuple[Sequence[str], Sequence[str]],
    counts: tuple[str, str],
) -> str:
    """inputs: rotated query, key and value [batch, tokens, its heads * head size]. cache: names of past and present
    key and value, which must be one buffer each. counts: (total, those of each sequence)."""
    rows, columns = block_table(sparse, attention.heads, context_length)
    graph.constant(ROWS, rows)
    graph.constant(COLUMNS, columns)
    total, lengths = counts
    return graph.node(
        "SparseAttention",
        [*inputs, *cache[0], ROWS, COLUMNS, total, lengths],
        [f"{name}.out", *cache[1]],
        domain=MICROSOFT,
        num_heads=attention.heads,
        kv_num_heads=attention.kv_heads,
        scale=attention.scale,
        sparse_block_size=sparse.block,
        do_rotary=0,
    )


def gegelu(graph: Graph, name: str, mlp: GegeluMlp, both: str) -> str:
    """Gate and linear part in turn [batch, tokens, 2 intermediate] -> [batch, tokens, intermediate]."""
    most = graph.constant("gegelu_limit", np.array(mlp.limit, np.float32))
    least = graph.constant("gegelu_least", np.array(-mlp.limit, np.float32))
    one = graph.constant("gegelu_one", np.array(1, np.float32))
    pairs = graph.constant("gegelu_pairs", [0, 0, -1, 2])
    pairs = graph.node("Reshape", [both, pairs], f"{name}.pairs")
    parts = [f"{name}.gate", f"{name}.linear"]
    graph.node("Split", [pairs, graph.constant("gegelu_parts", [1, 1])], parts, axis=-1)
    gate = graph.node("Clip", [parts[0], "", most], f"{name}.gate_clipped")
    gate = graph.node("QuickGelu", [gate], f"{name}.gelu", domain=MICROSOFT, alpha=1.702)
    linear = graph.node("Clip", [parts[1], least, most], f"{name}.linear_clipped")
    linear = graph.node("Add", [linear, one], f"{name}.linear_up")
    product = graph.node("Mul", [gate, linear], f"{name}.product")
    return graph.node("Squeeze", [product, graph.constant("gegelu_axis", [-1])], f"{name}.inner")


def finish_logits(graph: Graph, decoder: Decoder, logits: str) -> None:
    """`logits` scaled, and lowered where a token is none, as the output `logits`. A mask of the vocabulary's size is
    made when the graph is loaded, and does not lie in the file."""
    scale = graph.constant("logit_scale", np.array(decoder.logit_scale, np.float32))
    unused = np.array(decoder.unused_tokens, np.int64)
    graph.node("Mul", [logits, scale], "logits" if not unused.size else "logits.scaled")
    if unused.size:
        size = graph.constant("vocabulary", [decoder.vocab_size])
        ids = graph.constant("unused_tokens", unused)
        low = graph.constant("unused_logits", np.full(unused.shape, UNUSED_LOGIT, np.float32))
        zeros = graph.node("ConstantOfShape", [size], "no_mask")
        mask = graph.node("ScatterElements", [zeros, ids, low], "token_mask")
        graph.node("Add", ["logits.scaled", mask], "logits")

"""Attention of one layer, and what all layers share of it: lengths, positions, rotary tables."""

from __future__ import annotations

from dataclasses import dataclass

from onnx import TensorProto

from converters.decoder import Attention, Decoder
from converters.onnx.graph import MICROSOFT, Graph
from converters.onnx.layout import Layout
from converters.onnx.limits import fused_rotary
from converters.onnx.padded_heads import rotated, unpadded
from converters.onnx.rotary import COS, SIN, needs_long, short_rows
from converters.onnx.sparse import attend_sparse


@dataclass(frozen=True)
class Shared:
    """Names of values that every layer uses. `lengths` are `counts` less 1, int32 [batch]. `cos` and `sin` are tables
    [rows, dim / 2] where the kernel rotates (by `positions`, empty for its own counting), else the looked-up rows
    [batch, tokens, 1, dim / 2]."""

    lengths: str
    counts: str
    total: str
    cos: str
    sin: str
    positions: str


def lengths_of(graph: Graph) -> tuple[str, str, str]:
    """From the attention mask [batch, total]: its sums [batch, 1], those less 1 as int32 [batch], and total."""
    graph.constant("one", 1)
    graph.constant("one_axis", [1])
    counted = graph.node("ReduceSum", ["attention_mask", "one_axis"], "counted", keepdims=1)
    last = graph.node("Sub", [counted, "one_axis"], "last")
    last = graph.node("Squeeze", [last, "one_axis"], "last_flat")
    lengths = graph.node("Cast", [last], "lengths", to=TensorProto.INT32)
    shape = graph.node("Shape", ["attention_mask"], "mask_shape")
    return counted, lengths, graph.node("Gather", [shape, "one"], "total_int64")


def shared(
    graph: Graph, decoder: Decoder, layout: Layout, context_length: int, tokens: str = "input_ids"
) -> Shared:
    """Lengths from the attention mask, tables from the data file. `tokens`: the graph's input [batch, tokens, ...]."""
    counted, lengths, total = lengths_of(graph)
    total32 = graph.node("Cast", [total], "total", to=TensorProto.INT32)
    counts = ""
    if any(layer.sparse for layer in decoder.layers):
        counts = graph.node("Squeeze", [counted, "one_axis"], "counted_flat")
        counts = graph.node("Cast", [counts], "counts", to=TensorProto.INT32)
    cos, sin = (graph.external(layout.tensors[name]) for name in (COS, SIN))

    fused, long = fused_rotary(decoder), needs_long(decoder.rope, context_length)
    if fused and not long:
        return Shared(lengths, counts, total32, cos, sin, "")
    positions = _positions(graph, counted, tokens)
    if long:
        positions = _choose_table(graph, positions, total, decoder, context_length)
    if not fused:
        graph.constant("head_axis", [2])
        cos, sin = (
            graph.node(
                "Unsqueeze", [graph.node("Gather", [t, positions], f"{t}.rows"), "head_axis"], f"{t}.here"
            )
            for t in (cos, sin)
        )
    return Shared(lengths, counts, total32, cos, sin, positions)


def _positions(graph: Graph, counted: str, ids: str) -> str:
    """Positions of the new tokens, int64 [batch, tokens]. A shorter, right-padded row of a batch starts at 0."""
    graph.constant("zero", 0)
    shape = graph.node("Shape", [ids], "ids_shape")
    tokens = graph.node("Gather", [shape, "one"], "tokens")
    before = graph.node("Sub", [counted, tokens], "before")
    before = graph.node("Max", [before, "zero"], "first")
    steps = graph.node("Range", ["zero", tokens, "one"], "steps")
    return graph.node("Add", [before, steps], "positions")


def _choose_table(graph: Graph, positions: str, total: str, decoder: Decoder, context_length: int) -> str:
    """LongRoPE: beyond original_context every position is looked up in the second table."""
    graph.constant("switch", decoder.rope.original_context)
    graph.constant("long_offset", short_rows(decoder.rope, context_length))
    is_long = graph.node("Greater", [total, "switch"], "is_long")
    offset = graph.node("Where", [is_long, "long_offset", "zero"], "table_offset")
    return graph.node("Add", [positions, offset], "table_rows")


def attend(graph: Graph, layer: int, qkv: str, decoder: Decoder, common: Shared, context_length: int) -> str:
    """Packed projections [batch, tokens, (heads + 2 kv_heads) * head_dim] -> [batch, tokens, heads * head_dim]."""
    attention = decoder.attention
    name = f"layers.{layer}.attend"
    fused = fused_rotary(decoder)
    queries = [qkv, "", ""] if fused else list(rotated(graph, name, qkv, decoder, common.cos, common.sin))
    tables = [common.cos, common.sin, *([common.positions] if common.positions else [])] if fused else []
    past = [f"past_key_values.{layer}.{part}" for part in ("key", "value")]
    present = [f"present.{layer}.{part}" for part in ("key", "value")]
    if sparse := decoder.layers[layer].sparse:
        counts = (common.total, common.counts)
        caches = (past, present)
        attended = attend_sparse(graph, name, sparse, attention, context_length, queries, caches, counts)
        return unpadded(graph, name, attended, decoder)
    attended = graph.node(
        "GroupQueryAttention",
        [*queries, *past, common.lengths, common.total, *tables],
        [f"{name}.out", *present],
        domain=MICROSOFT,
        num_heads=attention.heads,
        kv_num_heads=attention.kv_heads,
        scale=attention.scale,
        local_window_size=_window(attention, context_length),
        do_rotary=int(fused),
        rotary_interleaved=0,
    )
    return attended if fused else unpadded(graph, name, attended, decoder)


def _window(attention: Attention, context_length: int) -> int:
    """The kernel counts as the decoder does (self and window - 1 before), at prefill and decode alike."""
    window = attention.window
    return window if window is not None and window < context_length else -1

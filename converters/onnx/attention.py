"""Attention of one layer, and what all layers share of it: lengths, positions, rotary tables."""

from __future__ import annotations

from dataclasses import dataclass

from converters.decoder import Attention, Decoder
from converters.onnx.graph import MICROSOFT, Graph
from converters.onnx.layout import Layout
from converters.onnx.limits import fused_rotary
from converters.onnx.rotary import COS, SIN, needs_long, short_rows

_HEAD_MULTIPLE = 8
"""The CPU kernel of GroupQueryAttention takes no other head size, even without rotary embedding."""


def cached_head_dim(decoder: Decoder) -> int:
    """Head size of the KV cache: where the kernel cannot take the model's, zero channels are appended."""
    head_dim = decoder.attention.head_dim
    return head_dim if fused_rotary(decoder) else -(-head_dim // _HEAD_MULTIPLE) * _HEAD_MULTIPLE


@dataclass(frozen=True)
class Shared:
    """Names of values that every layer uses. `cos` and `sin` are tables [rows, dim / 2] where the kernel rotates
    (by `positions`, empty for its own counting), else the looked-up rows [batch, tokens, 1, dim / 2]."""

    lengths: str
    total: str
    cos: str
    sin: str
    positions: str


def shared(graph: Graph, decoder: Decoder, layout: Layout, context_length: int) -> Shared:
    """Lengths from the attention mask [batch, total], tables from the data file."""
    graph.constant("zero", 0)
    graph.constant("one", 1)
    graph.constant("one_axis", [1])
    counted = graph.node("ReduceSum", ["attention_mask", "one_axis"], "counted", keepdims=1)
    last = graph.node("Sub", [counted, "one_axis"], "last")
    last = graph.node("Squeeze", [last, "one_axis"], "last_flat")
    lengths = graph.node("Cast", [last], "lengths", to=6)
    shape = graph.node("Shape", ["attention_mask"], "mask_shape")
    total = graph.node("Gather", [shape, "one"], "total_int64")
    total32 = graph.node("Cast", [total], "total", to=6)
    cos, sin = (graph.external(layout.tensors[name]) for name in (COS, SIN))

    fused, long = fused_rotary(decoder), needs_long(decoder.rope, context_length)
    if fused and not long:
        return Shared(lengths, total32, cos, sin, "")
    positions = _positions(graph, counted)
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
    return Shared(lengths, total32, cos, sin, positions)


def _positions(graph: Graph, counted: str) -> str:
    """Positions of the new tokens, int64 [batch, tokens]. A shorter, right-padded row of a batch starts at 0."""
    shape = graph.node("Shape", ["input_ids"], "ids_shape")
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
    queries = [qkv, "", ""] if fused else list(_rotated(graph, name, qkv, decoder, common))
    tables = [common.cos, common.sin, *([common.positions] if common.positions else [])] if fused else []
    past = [f"past_key_values.{layer}.{part}" for part in ("key", "value")]
    present = [f"present.{layer}.{part}" for part in ("key", "value")]
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
    return attended if fused else _unpadded(graph, name, attended, decoder)


def _window(attention: Attention, context_length: int) -> int:
    """The kernel counts as the decoder does (self and window - 1 before), at prefill and decode alike."""
    window = attention.window
    return window if window is not None and window < context_length else -1


def _rotated(graph: Graph, name: str, qkv: str, decoder: Decoder, common: Shared) -> tuple[str, str, str]:
    """Query, key and value for the kernel without its own rotary embedding, heads padded with zero channels."""
    heads, kv_heads, head_dim = (
        decoder.attention.heads,
        decoder.attention.kv_heads,
        decoder.attention.head_dim,
    )
    half, rest = decoder.rope.dim // 2, head_dim - decoder.rope.dim
    split = graph.constant("qk_v", [(heads + kv_heads) * head_dim, kv_heads * head_dim])
    by_head = graph.constant("by_head", [0, 0, -1, head_dim])
    flat = graph.constant("flat", [0, 0, -1])

    graph.node("Split", [qkv, split], [f"{name}.qk", f"{name}.v"], axis=-1)
    qk = graph.node("Reshape", [f"{name}.qk", by_head], f"{name}.qk_heads")
    sizes = graph.constant("rotary_parts", [half, half, rest][: 3 if rest else 2])
    parts = [f"{name}.first", f"{name}.second", *([f"{name}.unrotated"] if rest else [])]
    graph.node("Split", [qk, sizes], parts, axis=-1)
    first, second = parts[:2]

    def product(value: str, table: str) -> str:
        return graph.node("Mul", [value, table], f"{value}.{'cos' if table == common.cos else 'sin'}")

    left = graph.node("Sub", [product(first, common.cos), product(second, common.sin)], f"{name}.left")
    right = graph.node("Add", [product(second, common.cos), product(first, common.sin)], f"{name}.right")
    qk = graph.node("Concat", [left, right, *parts[2:]], f"{name}.turned", axis=-1)
    v = graph.node("Reshape", [f"{name}.v", by_head], f"{name}.v_heads")
    padding = cached_head_dim(decoder) - head_dim
    if padding:
        pads = graph.constant("head_padding", [0, 0, 0, 0, 0, 0, 0, padding])
        qk, v = (graph.node("Pad", [x, pads], f"{x}.padded") for x in (qk, v))
    split_heads = graph.constant("q_k_heads", [heads, kv_heads])
    graph.node("Split", [qk, split_heads], [f"{name}.q_heads", f"{name}.k_heads"], axis=2)
    q, k, v = (
        graph.node("Reshape", [x, flat], f"{name}.{short}_flat")
        for x, short in ((f"{name}.q_heads", "q"), (f"{name}.k_heads", "k"), (v, "v"))
    )
    return q, k, v


def _unpadded(graph: Graph, name: str, attended: str, decoder: Decoder) -> str:
    head_dim, padded = decoder.attention.head_dim, cached_head_dim(decoder)
    if padded == head_dim:
        return attended
    by_padded = graph.constant("by_padded_head", [0, 0, decoder.attention.heads, padded])
    heads = graph.node("Reshape", [attended, by_padded], f"{name}.attended_heads")
    sizes = graph.constant("head_and_padding", [head_dim, padded - head_dim])
    graph.node("Split", [heads, sizes], [f"{name}.kept", f"{name}.dropped"], axis=-1)
    return graph.node("Reshape", [f"{name}.kept", "flat"], f"{name}.unpadded")

"""Heads that GroupQueryAttention's CPU kernel cannot rotate or hold: the graph turns and pads them itself.

The kernel rotates only heads of a multiple of 16 channels, of which a multiple of 16 turn, and without rotating
takes a multiple of 8; it refuses anything else (measured with onnxruntime 1.32). Zero channels at the end of
query, key and value change no score and add only zeros to the output, which are cut off again.
"""

from __future__ import annotations

from converters.decoder import Decoder
from converters.onnx.graph import Graph
from converters.onnx.limits import fused_rotary

_HEAD_MULTIPLE = 8


def cached_head_dim(decoder: Decoder) -> int:
    """Head size of the KV cache, zero channels included."""
    head_dim = decoder.attention.head_dim
    return head_dim if fused_rotary(decoder) else -(-head_dim // _HEAD_MULTIPLE) * _HEAD_MULTIPLE


def rotated(graph: Graph, name: str, qkv: str, decoder: Decoder, cos: str, sin: str) -> tuple[str, str, str]:
    """Packed projections -> query, key and value, each [batch, tokens, its heads * cached_head_dim].

    `cos` and `sin` name rows [batch, tokens, 1, dim / 2]. Query and key heads turn together, as one tensor.
    """
    attention = decoder.attention
    heads, kv_heads, head_dim = attention.heads, attention.kv_heads, attention.head_dim
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
        return graph.node("Mul", [value, table], f"{value}.{'cos' if table == cos else 'sin'}")

    left = graph.node("Sub", [product(first, cos), product(second, sin)], f"{name}.left")
    right = graph.node("Add", [product(second, cos), product(first, sin)], f"{name}.right")
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


def unpadded(graph: Graph, name: str, attended: str, decoder: Decoder) -> str:
    """[batch, tokens, heads * cached_head_dim] -> [batch, tokens, heads * head_dim]."""
    head_dim, padded = decoder.attention.head_dim, cached_head_dim(decoder)
    if padded == head_dim:
        return attended
    by_padded = graph.constant("by_padded_head", [0, 0, decoder.attention.heads, padded])
    heads = graph.node("Reshape", [attended, by_padded], f"{name}.attended_heads")
    sizes = graph.constant("head_and_padding", [head_dim, padded - head_dim])
    graph.node("Split", [heads, sizes], [f"{name}.kept", f"{name}.dropped"], axis=-1)
    return graph.node("Reshape", [f"{name}.kept", "flat"], f"{name}.unpadded")

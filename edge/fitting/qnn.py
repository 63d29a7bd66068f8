"""What an NPU pipeline takes: of the HTP's session, which is bounded, and of the phone's memory in all.

    session    one stage compiled: its weights as they are stored, and the float16 KV cache in and out of it
    weights    both stages, which hold their weights apart, and embedding and lm_head on the CPU, packed anew
    kv_cache   2 * layers * kv_heads * head_dim float16 a position, one buffer for both stages
    workspace  activations of a window, and its logits

Not measured on a phone: the emulator keeps its memory elsewhere.
"""

from __future__ import annotations

from converters.decoder import Decoder
from converters.onnx.npu.layout import plan
from converters.onnx.npu.limits import WINDOW, cache_length
from converters.writer import Storages
from edge.fitting.memory import Memory

_RUNTIME = 100 << 20
_ROWS = 8
"""Activations of a layer that live at once, in widths of its widest."""


def cache_bytes(decoder: Decoder, context_length: int) -> int:
    attention = decoder.attention
    return (
        2 * 2 * len(decoder.layers) * attention.kv_heads * attention.head_dim * cache_length(context_length)
    )


def session_bytes(decoder: Decoder, recipe: Storages, context_length: int) -> int:
    """Of one stage in the HTP's address space."""
    return plan(decoder, recipe, 1).layers.nbytes + 2 * cache_bytes(decoder, context_length)


def memory(decoder: Decoder, recipe: Storages, context_length: int) -> Memory:
    files = plan(decoder, recipe, cache_length(context_length))
    widest = max(decoder.intermediate_size, decoder.hidden_size)
    workspace = WINDOW * (4 * decoder.vocab_size + 2 * _ROWS * widest)
    return Memory(
        weights=2 * files.layers.nbytes + 2 * files.head.nbytes,
        kv_cache=cache_bytes(decoder, context_length),
        workspace=workspace,
        runtime=_RUNTIME,
        file_backed=files.head.nbytes,
    )

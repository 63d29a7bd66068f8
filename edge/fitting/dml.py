"""What a DirectML variant takes of a GPU's memory, or of what an integrated one shares with the processor.

    weights    every tensor of the data file, as it is
    kv_cache   2 * layers * kv_heads * head_dim float16 a position
    workspace  of a prompt, which runs whole: its logits in float16 and, for the caller, float32; activations of the
               widest layer
    runtime    the engine, its command lists and compiled kernels

Not measured: this project has not met a Windows machine yet.
"""

from __future__ import annotations

from converters.decoder import Decoder
from converters.onnx import dml
from converters.writer import Storages
from edge.fitting.memory import Memory

_RUNTIME = 300 << 20
_ROWS = 8
"""Activations of a layer that live at once, in widths of its widest."""
_LOGIT_BYTES = 2 + 4


def memory(decoder: Decoder, recipe: Storages, context_length: int, *, filled: int) -> Memory:
    """`filled`: tokens of the longest prompt."""
    attention = decoder.attention
    position = 2 * 2 * len(decoder.layers) * attention.kv_heads * attention.head_dim
    widest = max(decoder.intermediate_size, decoder.hidden_size, attention.heads * attention.head_dim)
    return Memory(
        weights=dml.planned_bytes(decoder, recipe, context_length=context_length),
        kv_cache=position * context_length,
        workspace=filled * (_LOGIT_BYTES * decoder.vocab_size + 2 * _ROWS * widest),
        runtime=_RUNTIME,
        file_backed=0,
    )

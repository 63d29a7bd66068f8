"""What this room's graphs compute rightly on DirectML, by its kernels' source (onnxruntime 1.24.0, commit 01f40e6).

Three of its kernels accept what they then do not do, and say nothing:
- GroupQueryAttention has no sliding window: `local_window_size` is not read. Nor is `do_rotary`.
- GroupQueryAttention takes the cache for empty whenever it is given more than one token: a prompt must come whole,
  what follows token by token (`edge.runtimes.dml` does that).
- MatMulNBits without zero points multiplies by the codes as they are, 0 to 15, where the schema says minus 8; and it
  steps over rows of 8-bit zero points as if their number of blocks were even.
"""

from __future__ import annotations

from converters.decoder import Decoder
from converters.errors import UnsupportedError
from converters.onnx import limits as cpu
from converters.plain import require_plain
from converters.writer import Storages
from quant.blocks import BLOCK, FORMATS

BLOCK_FORMATS = frozenset(name for name in cpu.BLOCK_FORMATS if FORMATS[name].symmetric)
HEAD_MULTIPLE = 8
"""Channels a head: what GroupQueryAttention takes on the CPU without turning them, where the graph is proven."""


def context_limit(decoder: Decoder) -> tuple[int, str | None]:
    """The longest context that is right here, and why where that is less than the checkpoint claims."""
    switch, window = decoder.rope.original_context, decoder.attention.window
    limits: list[tuple[int, str | None]] = [(decoder.context_length, None)]
    if decoder.rope.is_longrope:
        why = f"LongRoPE factors switch at {switch} positions, and a captured DirectML graph holds one set of them"
        limits.append((switch, why))
    if window is not None:
        why = f"DirectML's attention has no sliding window, and the model's is {window} positions"
        limits.append((window, why))
    return min(limits, key=lambda limit: limit[0])


def check(decoder: Decoder, recipe: Storages) -> None:
    """Raise UnsupportedError, by name, for what has no right form on DirectML."""
    cpu.check(decoder, recipe)
    require_plain(decoder, "the DirectML graph", "convert it for the CPU: --target cpu")
    if decoder.attention.head_dim % HEAD_MULTIPLE:
        raise UnsupportedError(
            f"a head of {decoder.attention.head_dim} channels is no multiple of {HEAD_MULTIPLE}",
            hint="convert it for the CPU: --target cpu",
        )
    for weight in decoder.weights():
        storage = recipe.storage(weight)
        if weight.is_matrix and storage not in (*BLOCK_FORMATS, "f16"):
            raise UnsupportedError(
                f"{weight.name} is stored as {storage}: the DirectML graph takes int4, int8 and f16",
                hint="--precision int4, int8 or f16",
            )
        looked_up = weight is decoder.embedding and not decoder.tied
        if storage == "int8" and weight.shape[1] // BLOCK % 2 and not looked_up:
            raise UnsupportedError(
                f"{weight.name} has {weight.shape[1] // BLOCK} blocks of {BLOCK} a row, an odd number: DirectML would "
                "misread the zero points of int8",
                hint="give it int4 or f16 in a recipe: --recipe FILE",
            )

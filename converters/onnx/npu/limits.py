"""What this room's pipelines compute rightly on Qualcomm's HTP (onnxruntime-qnn 2.7.0, its own emulator)."""

from __future__ import annotations

from converters.decoder import Decoder
from converters.errors import UnsupportedError
from converters.onnx import limits as cpu
from converters.plain import require_plain
from converters.writer import Storages
from quant.blocks import FORMATS

BLOCK_FORMATS = frozenset(name for name in cpu.BLOCK_FORMATS if FORMATS[name].symmetric)
"""Asymmetric blocks run on the emulator too, as MatMulNBits; the vendor's own formats are symmetric."""
WINDOW = 64
"""Tokens of a prompt that run at once."""


def cache_length(context_length: int, window: int = WINDOW) -> int:
    """Positions of the KV cache for so many usable tokens: whole windows, and one more.

    onnxruntime-genai counts the padding of a prompt's last window as tokens: without a window to spare, a prompt
    that fills the context could not be answered.
    """
    return -(-context_length // window) * window + window


def context_limit(decoder: Decoder) -> tuple[int, str | None]:
    """The longest context that is right here, and why where that is less than the checkpoint claims."""
    most, why = decoder.context_length, "the NPU's cache is made of whole windows, one of them for padding"
    switch, window = decoder.rope.original_context, decoder.attention.window
    if decoder.rope.is_longrope and switch < most:
        most, why = (
            switch,
            (f"LongRoPE factors switch at {switch} positions, and a static graph holds one set of them"),
        )
    if window is not None and window < most:
        most, why = (
            window,
            f"the NPU's attention has no sliding window, and the model's is {window} positions",
        )
    return most // WINDOW * WINDOW - WINDOW, why


def check(decoder: Decoder, recipe: Storages) -> None:
    """Raise UnsupportedError, by name, for what has no form on the NPU."""
    cpu.check(decoder, recipe)
    require_plain(decoder, "the NPU pipeline", "convert it for the CPU: --target cpu")
    if context_limit(decoder)[0] < 1:
        raise UnsupportedError(
            f"a context of {decoder.context_length} tokens is shorter than two windows of {WINDOW}",
            hint="convert it for the CPU: --target android",
        )
    for weight in decoder.weights():
        storage = recipe.storage(weight)
        if weight.is_matrix and storage not in BLOCK_FORMATS:
            raise UnsupportedError(
                f"{weight.name} is stored as {storage}: the NPU's MatMulNBits takes symmetric int4 and int8 only",
                hint=_hint(weight.shape[1]),
            )


def _hint(columns: int) -> str:
    if columns % 32:
        return f"its {columns} columns are no multiple of 32: convert the model for the CPU, --target android"
    return "--precision int4 or int8"

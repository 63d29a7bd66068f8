"""The cosine and sine tables that GroupQueryAttention looks positions up in.

LongRoPE has two sets of factors, and which one holds depends on the total length. Both tables lie in one
tensor, short rows first: `position + long_offset` then finds a row of the long table, and nothing is copied
at run time. (An If that chooses between two tables copies the chosen one for every token.)
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from converters.decoder import Rope
from converters.onnx.tensors import Tensor

COS, SIN = "rotary.cos", "rotary.sin"
_CHUNK = 4096

Tables = Iterator[tuple[int, NDArray[np.float32], NDArray[np.float32]]]
"""(first row, cosines, sines), in pieces."""


def needs_long(rope: Rope, context_length: int) -> bool:
    """Whether sequences of the bundle can grow beyond where LongRoPE's factors switch."""
    return rope.is_longrope and context_length > rope.original_context


def short_rows(rope: Rope, context_length: int) -> int:
    """Rows of the first table; the second, where needed, begins there and has `context_length` rows."""
    return min(rope.original_context, context_length) if rope.is_longrope else context_length


def cache_tensors(rope: Rope, context_length: int) -> tuple[Tensor, ...]:
    """The tensors `rotary.cos` and `rotary.sin`, float32 [rows, rope.dim / 2]; none where nothing is rotated."""
    if not rope.dim:
        return ()
    rows = short_rows(rope, context_length) + needs_long(rope, context_length) * context_length
    dims = (rows, rope.dim // 2)
    return Tensor(COS, np.dtype(np.float32), dims), Tensor(SIN, np.dtype(np.float32), dims)


def cache_chunks(rope: Rope, context_length: int) -> Tables:
    """(first row, cos, sin) for both tables, a few thousand rows at a time."""
    if not rope.dim:
        return
    short = short_rows(rope, context_length)
    tables = [(0, short, rope.at(short))]
    if needs_long(rope, context_length):
        tables.append((short, context_length, rope.at(context_length)))
    for first, rows, (factors, scale) in tables:
        frequencies = inverse_frequencies(rope, factors)
        for start in range(0, rows, _CHUNK):
            positions = np.arange(start, min(start + _CHUNK, rows), dtype=np.float32)
            # The product is rounded to float32 as in the original model; the functions are then evaluated in
            # float64, so that no processor's float32 cosine decides the bytes.
            angles = np.outer(positions, frequencies).astype(np.float64)
            yield first + start, _scaled(np.cos(angles), scale), _scaled(np.sin(angles), scale)


def inverse_frequencies(rope: Rope, factors: tuple[float, ...] | None) -> NDArray[np.float32]:
    """1 / (factor[i] * theta ** (2 i / dim)), float32 [dim / 2]; no factors: all 1."""
    exponents = np.arange(0, rope.dim, 2, dtype=np.float32) / np.float32(rope.dim)
    powers = np.power(rope.theta, exponents.astype(np.float64)).astype(np.float32)
    if factors is not None:
        powers *= np.asarray(factors, np.float32)
    return (np.float32(1) / powers).astype(np.float32)


def _scaled(values: NDArray[np.float64], scale: float) -> NDArray[np.float32]:
    return (values.astype(np.float32) * np.float32(scale)).astype(np.float32)

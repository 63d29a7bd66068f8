"""Blocks whose scales are whole multiples, 1 to 16, of one positive scale a row: int4. Or are all the row's: int8.

What Qualcomm calls low power block quantization (QNN, QNN_QUANTIZATION_ENCODING_BLOCKWISE_EXPANSION): int4 codes
times 4-bit multiples are int8 weights with a scale a row, which its matrix unit multiplies 16-bit activations by as
whole numbers. They are blocks like any others, so every other format holds the same codes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant.blocks import BLOCK, BlockFormat, Blocks

LARGEST = 16
_TRIED = 3
"""Multiples tried for a block: the nearest to the scale that it had, and the next larger ones, which the code of
largest magnitude may need when the scale was negative."""
_AT_ONCE = 1 << 16
"""Values: what is worked with stays in the processor's cache."""
_MANTISSA = 7
"""Bits of a row's scale: times a multiple it is a float16 exactly."""
_TINY = np.float32(2.0**-17)
"""A row's scale at least: 7 bits below it is the smallest float16, 2**-24."""


def constrain(blocks: Blocks, values: NDArray[np.float32]) -> Blocks:
    """`blocks` with such scales, and the codes that are nearest to `values` float32 [rows, columns] with them.

    Each row is chosen alone, so any chunking gives the same bits. ValueError for a format that is not symmetric.
    """
    if not blocks.format.symmetric:
        raise ValueError(f"{blocks.format.name} has zero points")
    step = max(1, _AT_ONCE // max(blocks.codes.shape[1], 1))
    parts = [
        _constrained(blocks.format.bits, blocks.scales[start : start + step], values[start : start + step])
        for start in range(0, len(values), step)
    ]
    codes, scales = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return Blocks(blocks.format, codes, scales)


def _constrained(
    bits: int, scales: NDArray[np.float16], values: NDArray[np.float32]
) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
    rows, count = scales.shape
    half = np.float32(1 << (bits - 1))
    if bits == 8:
        scale = _rounded_up(np.abs(values).max(axis=1) / (half - 1))[:, None]
        codes = np.clip(np.rint(values / scale), -half, half - 1)
        return (codes + half).astype(np.uint8), np.repeat(scale, count, axis=1).astype(np.float16)
    old = np.abs(scales.astype(np.float32))
    scale = _rounded_up(old.max(axis=1) / np.float32(LARGEST))[:, None]
    nearest = np.clip(np.rint(old / scale), 1, LARGEST)
    shaped = values.reshape(rows, count, BLOCK)
    best = np.full((rows, count), np.inf, np.float32)
    codes, multiples = np.zeros(shaped.shape, np.float32), nearest
    for more in range(_TRIED):
        tried = np.minimum(nearest + np.float32(more), LARGEST)
        step = (tried * scale)[:, :, None]
        found = shaped / step
        np.rint(found, out=found)
        np.clip(found, -half, half - 1, out=found)
        error = found * step
        error -= shaped
        total = _sum(np.square(error, out=error))
        better = total < best
        best = np.where(better, total, best)
        multiples = np.where(better, tried, multiples)
        np.copyto(codes, found, where=better[:, :, None])
    codes += half
    return codes.astype(np.uint8).reshape(rows, -1), (multiples * scale).astype(np.float16)


def _sum(terms: NDArray[np.float32]) -> NDArray[np.float32]:
    """Over the last axis, a power of two, in one order on every processor; `terms` is used up."""
    width = terms.shape[-1] // 2
    while width:
        terms[..., :width] += terms[..., width : 2 * width]
        width //= 2
    return terms[..., 0].copy()


def split(blocks: Blocks) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """(multiples uint8 [rows, blocks], scales float32 [rows]): of int8 all multiples are 1.

    ValueError when the scales are not positive, or no such multiples.
    """
    scales = blocks.scales.astype(np.float32)
    if scales.min() <= 0:
        raise ValueError("block scales are not positive")
    most = np.float32(LARGEST if blocks.format.bits == 4 else 1)
    # The scale is the largest float of few bits of which every block's is a multiple up to `most`.
    row = scales.max(axis=1, initial=0)
    for parts in range(int(most), 0, -1):
        unit = scales.max(axis=1) / np.float32(parts)
        fits = np.all(np.rint(scales / unit[:, None]) * unit[:, None] == scales, axis=1)
        row = np.where(fits, unit, row)
    multiples = np.rint(scales / row[:, None])
    if not np.array_equal(multiples * row[:, None], scales) or multiples.min() < 1 or multiples.max() > most:
        raise ValueError("block scales are no whole multiples of a row's")
    return multiples.astype(np.uint8), row


def join(
    fmt: BlockFormat, codes: NDArray[np.uint8], multiples: NDArray[np.uint8], scales: NDArray[np.float32]
) -> Blocks:
    """Inverse of `split`."""
    return Blocks(fmt, codes, (multiples.astype(np.float32) * scales[:, None]).astype(np.float16))


def _rounded_up(scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """To _MANTISSA bits."""
    mantissa, exponent = np.frexp(np.maximum(scale, _TINY))
    unit = np.float32(1 << _MANTISSA)
    return np.ldexp(np.ceil(mantissa * unit) / unit, exponent).astype(np.float32)

"""The numpy path of `quant.rtn`: the same arithmetic as kernel.c, in the same order, so the same bits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant.blocks import BLOCK, BlockFormat, Blocks

FloatArray = NDArray[np.float32]


class BadValue(ValueError):
    """A weight that no block can hold: not finite, or too large for a float16 scale. Row and column in the chunk."""

    def __init__(self, row: int, column: int, value: float) -> None:
        super().__init__(f"row {row} column {column} is {value:g}")
        self.row, self.column, self.value = row, column, value


def quantize(rows: NDArray[np.generic], fmt: BlockFormat) -> Blocks:
    """See `quant.rtn.quantize`."""
    with np.errstate(over="ignore"):
        wide = rows.astype(np.float32)
    n, columns = wide.shape
    blocks = np.ascontiguousarray(wide.reshape(-1, BLOCK).T)
    if not np.isfinite(blocks).all():
        row, column = np.argwhere(~np.isfinite(wide))[0]
        raise BadValue(int(row), int(column), float(wide[row, column]))
    amax = np.abs(blocks).max(axis=0, initial=0)
    shape = (n, columns // BLOCK)
    if fmt.bits == 8:
        scale = (amax / np.float32(127)).astype(np.float16)
        q = _codes(blocks, scale, -128, 127) + 128
        return Blocks(fmt, _untile(q, n), scale.reshape(shape))
    if fmt.symmetric:
        top = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=0)[None], axis=0)[0]
        best = np.full(amax.shape, np.inf, np.float32)
        scale = np.zeros(amax.shape, np.float16)
        codes = np.zeros_like(blocks)
        for divisor in (-8.0, -7.5, -7.0, -8.5, 7.0, 7.5):
            s = (top / np.float32(divisor)).astype(np.float16)
            q = _codes(blocks, s, -8, 7)
            error = np.square(blocks - q * s.astype(np.float32)).sum(axis=0)
            better = error < best
            best = np.where(better, error, best)
            scale = np.where(better, s, scale)
            codes = np.where(better, q, codes)
        return Blocks(fmt, _untile(codes + 8, n), scale.reshape(shape))
    low, high = np.minimum(blocks.min(axis=0, initial=0), 0), np.maximum(blocks.max(axis=0, initial=0), 0)
    step = (high - low) / np.float32(15)
    bits = (step.view(np.uint32) + (1 << 16)) & np.uint32(0xFFFE0000)
    scale = bits.view(np.float32).astype(np.float16)
    with np.errstate(divide="ignore", invalid="ignore"):
        zero = np.where(scale == 0, 0, np.clip(np.rint(-low / scale.astype(np.float32)), 0, 15))
    q = np.clip(_codes(blocks, scale, -15, 15) + zero, 0, 15)
    return Blocks(fmt, _untile(q, n), scale.reshape(shape), zero.astype(np.uint8).reshape(shape))


def _codes(blocks: FloatArray, scale: NDArray[np.float16], low: int, high: int) -> FloatArray:
    step = scale.astype(np.float32)
    inverse = np.divide(1, step, out=np.zeros_like(step), where=step != 0)
    return np.rint(np.clip(blocks * inverse, low, high))


def _untile(codes: FloatArray, rows: int) -> NDArray[np.uint8]:
    return np.ascontiguousarray(codes.T.astype(np.uint8)).reshape(rows, -1)

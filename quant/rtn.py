"""Round to nearest: codes from the weights alone, with the scale found by squared-error search."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant import search
from quant.blocks import BLOCK, BlockFormat, Blocks
from quant.search import BadValue

__all__ = ["BadValue", "quantize"]


def quantize(rows: NDArray[np.generic], fmt: BlockFormat) -> Blocks:
    """Codes of a row chunk. Each block is chosen alone, so any chunking gives the same bits.

    rows: [n, columns] float32, float16, float64 or ml_dtypes.bfloat16; columns a multiple of 32. Works in float32
    (float64 is rounded to it first). BadValue when a weight is not finite, or too large for a float16 scale.
    """
    if rows.ndim != 2 or rows.shape[1] % BLOCK:
        raise ValueError(f"cannot cut shape {rows.shape} into blocks of {BLOCK} columns")
    return search.quantize(rows, fmt)

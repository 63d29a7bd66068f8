"""Round to nearest: codes from the weights alone, with scales found by squared-error search (quant.search).

The work is compiled, in kernel.c: plain C against Python's limited API, built when the package is installed, and
without a dependency. It fits this project better than numba, which would bring a compiler of its own to every
user and start it in every process. What it costs and gives, on two 2.6 GHz Zen 4 cores (bfloat16 in, both formats
out, `python -m benchmarks.quantize`): import and first call under 1 ms, 40 kB, 400 to 500 MB/s a thread where the
numpy path makes 50. It lets go of the GIL. Where it could not be built KERNEL is False, and the bits are the same.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant import search
from quant.blocks import BLOCK, FORMATS, KERNEL, BlockFormat, Blocks
from quant.search import BadValueError

if KERNEL:
    from quant import _kernel

__all__ = ["KERNEL", "BadValueError", "quantize"]

_DTYPES = ("float32", "float16", "bfloat16", "float64")
_WIDEST = 16


def quantize(rows: NDArray[np.generic], fmt: BlockFormat) -> Blocks:
    """Codes of a row chunk. Each block is chosen alone, so any chunking gives the same bits.

    rows: [n, columns] float32, float16, float64 or ml_dtypes.bfloat16; columns a multiple of 32. Works in
    float32 (float64 is rounded to it first) and without the GIL. BadValueError when a weight is not finite, or
    too large for a float16 scale.
    """
    if rows.ndim != 2 or rows.shape[1] % BLOCK:
        raise ValueError(f"cannot cut shape {rows.shape} into blocks of {BLOCK} columns")
    if rows.dtype.name not in _DTYPES:
        raise ValueError(f"rows are {rows.dtype}, not one of {', '.join(_DTYPES)}")
    return _compiled(rows, fmt, _WIDEST) if KERNEL else search.quantize(rows, fmt)


def _compiled(rows: NDArray[np.generic], fmt: BlockFormat, lanes: int) -> Blocks:
    """With SIMD of at most `lanes` (4, 8 or 16) blocks."""
    shape = (rows.shape[0], rows.shape[1] // BLOCK)
    codes = np.empty(rows.shape, np.uint8)
    scales = np.empty(shape, np.float16)
    zeros = np.empty((0, 0) if fmt.symmetric else shape, np.uint8)
    raw = np.ascontiguousarray(rows, rows.dtype.newbyteorder("=")).view(np.uint8)
    name, dtype = list(FORMATS).index(fmt.name), _DTYPES.index(rows.dtype.name)
    bad = _kernel.quantize(name, dtype, raw, codes, scales, zeros, lanes)
    if bad >= 0:
        row = bad // shape[1]
        try:
            search.check(rows[row : row + 1], fmt)
        except BadValueError as error:
            raise BadValueError(row, error.column, error.value) from None
    return Blocks(fmt, codes, scales, None if fmt.symmetric else zeros)

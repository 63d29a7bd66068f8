"""How scales and codes are chosen: the numpy path of `quant.rtn`, and the specification of kernel.c.

A block's squared error sum((x - q s)^2) has, for fixed codes q, its least value at s = <x, q> / <q, q>, and there
it is <x, x> - <x, q>^2 / <q, q>. So each of a few divisions of the block's range gives codes, the codes give that
score, and the best one gives the scale; it is rounded to float16, the codes are made again, and whatever the
rounding did is measured against plain absmax, so no block is ever worse than that. On Gaussian weights its
squared error is within 0.3 % of the best of 1000 scales (tests/quant/test_rtn.py); plain absmax has 13 % more than
this search (`python -m benchmarks.quantize`).

The arithmetic is float32 in a fixed order, weight after weight of a block, so that kernel.c and numpy give the
same bits on any machine. Arrays here are transposed: [32, blocks].
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant.blocks import BLOCK, BlockFormat, Blocks, FormatName

FloatArray = NDArray[np.float32]

ONE = np.float32(1)
TINY = np.float32(2.0**-24)
"""The least float16. A block whose weights all round to zero steps of it becomes zero: scale 0."""
HALF_MAX = np.float32(65504)
LIMITS: dict[FormatName, np.float32] = {
    "int4": HALF_MAX * np.float32(8),
    "int4_asym": np.float32(32768),
    "int5": HALF_MAX * np.float32(16),
    "int8": HALF_MAX * np.float32(127),
}
"""The largest magnitude whose scale (for int4_asym also scale times zero point) is a finite float16."""

DIVISORS = np.array([-7.8, -8.2, -8.6, -9.0, 6.35, 6.75, 7.1, 7.45], np.float32)
"""int4: the weight of largest magnitude over the scale. It lands on -8, or on 6 or 7, the far end clipped."""
DIVISORS_5 = np.array([-14.1, -14.85, -15.2, -15.8, -16.1, -16.4, -16.7, 13.1], np.float32)
"""int5: likewise, on -14 to -16 or on 13. The eight that together come nearest to the best of 160."""
SPANS = np.array([14.2, 14.75, 15.3, 15.85, 16.4, 16.95, 17.5], np.float32)
"""int4_asym: steps from the least to the largest weight of a block."""
NEIGHBOURS = np.array([1.0, 0.989, 1.011], np.float32)
"""int4_asym: the rounded scale, and the next of 7 bits on either side."""
ASYM_BITS = 7
"""Significant bits of an int4_asym scale: times a 4-bit zero point it is then exact in float16 (Q4_1's m)."""
SLAB = 2048
"""Blocks worked on at once: their arrays stay in the cache."""


class BadValueError(ValueError):
    """A weight that no block can hold: not finite, or too large for a float16 scale. Counted in the chunk."""

    def __init__(self, row: int, column: int, value: float) -> None:
        super().__init__(f"row {row} column {column} is {value:g}")
        self.row, self.column, self.value = row, column, value


def widen(rows: NDArray[np.generic]) -> FloatArray:
    """Any float dtype to float32; what overflows becomes infinite, and is refused later."""
    with np.errstate(over="ignore"):
        return rows.astype(np.float32)


def check(rows: NDArray[np.generic], fmt: BlockFormat) -> None:
    """BadValueError for the first weight that `fmt` cannot hold."""
    wide = widen(rows)
    good = np.abs(wide) <= LIMITS[fmt.name]
    if not good.all():
        row, column = np.unravel_index(int(np.argmin(good)), good.shape)
        raise BadValueError(int(row), int(column), float(wide[row, column]))


def quantize(rows: NDArray[np.generic], fmt: BlockFormat) -> Blocks:
    """See `quant.rtn.quantize`."""
    check(rows, fmt)
    n, columns = rows.shape
    count = n * (columns // BLOCK)
    flat = rows.reshape(count, BLOCK)
    codes = np.empty((count, BLOCK), np.uint8)
    scales = np.empty(count, np.float16)
    zeros = np.empty(count, np.uint8)
    choose = {"int4": _int4, "int4_asym": _int4_asym, "int5": _int5, "int8": _int8}[fmt.name]
    for start in range(0, count, SLAB):
        slab = slice(start, start + SLAB)
        x = np.ascontiguousarray(widen(flat[slab]).T)
        scale, zero, dead = choose(x)
        offset = zero if zero is not None else np.float32(1 << (fmt.bits - 1))
        low, high = -offset, np.float32((1 << fmt.bits) - 1) - offset
        codes[slab] = (_round(x * _divide(ONE, scale), low, high) + offset).T
        scales[slab] = np.where(dead, 0, scale)
        if zero is not None:
            zeros[slab] = zero
    shape = (n, columns // BLOCK)
    return Blocks(
        fmt, codes.reshape(n, columns), scales.reshape(shape), None if fmt.symmetric else zeros.reshape(shape)
    )


Choice = tuple[FloatArray, FloatArray | None, NDArray[np.bool_]]
"""Scales (never zero), zero points, and which blocks are all zero."""


def _int4(x: FloatArray) -> Choice:
    return _symmetric(x, np.float32(8), DIVISORS)


def _int5(x: FloatArray) -> Choice:
    return _symmetric(x, np.float32(16), DIVISORS_5)


def _symmetric(x: FloatArray, half: np.float32, divisors: FloatArray) -> Choice:
    """Codes -half..half - 1."""
    top = np.take_along_axis(x, np.abs(x).argmax(axis=0)[None], axis=0)[0]
    dead = np.abs(top) <= TINY / 2
    top = np.where(dead, ONE, top)
    y = x * _divide(ONE, top)
    low, high = -half, half - ONE
    best, ratio = np.full_like(top, -1), np.zeros_like(top)
    for divisor in divisors:
        fit, score = _score(y, _round(y * divisor, low, high))
        better = score > best
        ratio = np.where(better, fit, ratio)
        best = np.where(better, score, best)
    scale, following = round_scale(top * -_divide(ONE, half), 11), round_scale(top * ratio, 11)
    better = _error(x, following, low, high) < _error(x, scale, low, high)
    return np.where(better, following, scale), None, dead


def _int4_asym(x: FloatArray) -> Choice:
    none, last = np.float32(0), np.float32(15)
    bottom, top = np.minimum(x.min(axis=0), none), np.maximum(x.max(axis=0), none)
    dead = (-bottom <= TINY / 2) & (top <= TINY / 2)
    span = np.where(dead, ONE, top - bottom)
    inverse = _divide(ONE, span)
    below = -bottom * inverse
    y = x * inverse
    best, ratio, zero = np.full_like(span, -1), np.zeros_like(span), np.zeros_like(span)
    for steps in SPANS:
        z = _round(below * steps - (steps - last) * np.float32(0.5), none, last)
        fit, score = _score(y, _round(y * steps, -z, last - z))
        better = score > best
        ratio = np.where(better, fit, ratio)
        best = np.where(better, score, best)
        zero = np.where(better, z, zero)
    scale = round_scale(_divide(span, last), ASYM_BITS)
    chosen = _round(-bottom * _divide(ONE, scale), none, last)
    error = _error(x, scale, -chosen, last - chosen)
    for neighbour in NEIGHBOURS:
        following = round_scale(span * ratio * neighbour, ASYM_BITS)
        error_then = _error(x, following, -zero, last - zero)
        better = error_then < error
        scale = np.where(better, following, scale)
        chosen = np.where(better, zero, chosen)
        error = np.where(better, error_then, error)
    return scale, np.where(dead, none, chosen), dead


def _int8(x: FloatArray) -> Choice:
    """absmax / 127 in float16, or the next float16 where rounding down clips more than it wins."""
    low, high = np.float32(-128), np.float32(127)
    top = np.abs(x).max(axis=0)
    scale = round_scale(_divide(top, high), 11)
    above = np.minimum(
        np.nextafter(scale.astype(np.float16), np.float16(np.inf)).astype(np.float32), HALF_MAX
    )
    better = _error(x, above, low, high) < _error(x, scale, low, high)
    return np.where(better, above, scale), None, top <= TINY / 2


def _divide(a: FloatArray | np.float32, b: FloatArray | np.float32) -> FloatArray:
    quotient: FloatArray = np.divide(a, b)  # numpy's stubs make a / b a float64
    return quotient


def _round(v: FloatArray, low: FloatArray | np.float32, high: FloatArray | np.float32) -> FloatArray:
    """Clip, then to the nearest integer, ties to even; the bounds are integers."""
    rounded: FloatArray = np.rint(np.clip(v, low, high))
    return rounded


def round_scale(v: FloatArray, keep: int) -> FloatArray:
    """To `keep` significant bits, as a float16 that is neither zero nor infinite; ties to even."""
    magnitude = np.abs(v)
    _, exponent = np.frexp(magnitude)
    step = np.maximum(np.ldexp(ONE, exponent - keep), TINY)
    rounded: FloatArray = np.copysign(np.clip(np.rint(magnitude / step) * step, TINY, HALF_MAX), v)
    return rounded


def _score(y: FloatArray, q: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Least-squares scale of the codes, and by how much it lowers the squared error."""
    yq, qq = _sum(y * q), _sum(q * q)
    fit = _divide(yq, np.where(qq > 0, qq, ONE))
    return fit, yq * fit


def _error(
    x: FloatArray, scale: FloatArray, low: FloatArray | np.float32, high: FloatArray | np.float32
) -> FloatArray:
    """Squared error with this scale."""
    q = _round(x * _divide(ONE, scale), low, high)
    return _sum(np.square(x - q * scale))


def _sum(terms: FloatArray) -> FloatArray:
    """Over the block, in its order; np.sum is free to add pairwise."""
    total: FloatArray = np.zeros_like(terms[0])
    for term in terms:
        total += term
    return total

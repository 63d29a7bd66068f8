"""Scales worth trying for a block, for codes that are chosen by `quant.gptq`.

A candidate is a scale with the codes' bounds: q in [low, high], value q * scale. Symmetric formats have fixed
bounds and scales of either sign (the code of largest magnitude is negative); asymmetric ones move the bounds by
the zero point, -low. Every scale is a float16 (of `ASYM_BITS` bits where the format asks) from the start, so that
what is tried is what will be stored.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quant import rtn
from quant.blocks import BlockFormat
from quant.search import ASYM_BITS, TINY, round_scale

Floats = NDArray[np.float32]

# Around the scale that rounding to nearest would take, which is the best when all columns count the same.
# Far less pays where columns that count little hold the largest weights.
SHARES = np.concatenate([[1], np.linspace(0.45, 1.15, 31)]).astype(np.float32)


@dataclass(frozen=True)
class Candidates:
    """scales float32 [count, rows], never zero; low, high: bounds of the codes, scalars or [count, rows]."""

    scales: Floats
    low: Floats | np.float32
    high: Floats | np.float32


def candidates(target: Floats, fmt: BlockFormat) -> Candidates:
    """For blocks `target` [32, rows]."""
    rounded = rtn.quantize(np.ascontiguousarray(target.T), fmt)
    scale = rounded.scales[:, 0].astype(np.float32)
    scale = np.where(scale == 0, TINY, scale)
    if fmt.symmetric:
        half = np.float32(1 << (fmt.bits - 1))
        steps = SHARES[:, None] * scale
        return Candidates(round_scale(np.concatenate([steps, -steps]), 11), -half, half - 1)
    last = np.float32((1 << fmt.bits) - 1)
    scales = round_scale(SHARES[:, None] * scale, ASYM_BITS)
    low, high = np.minimum(target.min(axis=0), 0), np.maximum(target.max(axis=0), 0)
    # The middle of the span in the middle of the codes.
    zero = np.clip(np.rint(last / 2 - (low + high) / 2 / scales), 0, last)
    if rounded.zeros is not None:
        zero[0] = rounded.zeros[:, 0]
    return Candidates(scales, -zero, last - zero)


def refit(aim: Floats, seen: Floats, zero: Floats, fmt: BlockFormat) -> Candidates:
    """The least-squares scale for codes as they are: aim, seen [32, rows] are target and codes in the cost's metric."""
    energy = np.square(seen).sum(axis=0)
    fit = (seen * aim).sum(axis=0) / np.where(energy > 0, energy, 1)
    if fmt.symmetric:
        return fixed(round_scale(np.where(np.abs(fit) < TINY, TINY, fit), 11), zero, fmt)
    return fixed(round_scale(np.maximum(fit, TINY), ASYM_BITS), zero, fmt)


def fixed(scale: Floats, zero: Floats, fmt: BlockFormat) -> Candidates:
    """One scale and zero point for each row [rows], already such as can be stored."""
    if fmt.symmetric:
        half = np.float32(1 << (fmt.bits - 1))
        return Candidates(scale[None], -half, half - 1)
    last = np.float32((1 << fmt.bits) - 1)
    return Candidates(scale[None], -zero[None], last - zero[None])

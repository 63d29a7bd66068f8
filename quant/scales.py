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

from quant.blocks import BlockFormat
from quant.search import ASYM_BITS, TINY, round_scale

Floats = NDArray[np.float32]

# Divisions of a block's largest magnitude, in steps of the code range: 1 keeps it, less clips it.
SHARES = np.linspace(0.6, 1.1, 11, dtype=np.float32)
SHRUNK = np.array([0.7, 0.78, 0.86, 0.93, 1.0, 1.05], np.float32)
"""Asymmetric: share of the span from the least to the largest weight that the codes cover."""


@dataclass(frozen=True)
class Candidates:
    """scales float32 [count, rows], never zero; low, high: bounds of the codes, scalars or [count, rows]."""

    scales: Floats
    low: Floats | np.float32
    high: Floats | np.float32


def candidates(target: Floats, weights: Floats, fmt: BlockFormat) -> Candidates:
    """For blocks `target` [32, rows]; `weights` [32, 1] are what an error of each column costs."""
    levels = 1 << fmt.bits
    if fmt.symmetric:
        half = np.float32(levels // 2)
        top = np.maximum(np.abs(target).max(axis=0), TINY)
        steps = SHARES[:, None] * (top / half)
        scales = round_scale(np.concatenate([steps, -steps]), 11)
        return Candidates(scales, -half, half - 1)
    last = np.float32(levels - 1)
    low, high = np.minimum(target.min(axis=0), 0), np.maximum(target.max(axis=0), 0)
    span = np.maximum(high - low, TINY)
    scales = round_scale(SHRUNK[:, None] * (span / last), ASYM_BITS)
    # The middle of the span in the middle of the codes.
    zero = np.clip(np.rint(last / 2 - (low + high) / 2 / scales), 0, last)
    return Candidates(scales, -zero, last - zero)


def refit(aim: Floats, seen: Floats, zero: Floats, fmt: BlockFormat) -> Candidates:
    """The least-squares scale for codes as they are: aim, seen [32, rows] are target and codes in the cost's metric."""
    energy = np.square(seen).sum(axis=0)
    fit = (seen * aim).sum(axis=0) / np.where(energy > 0, energy, 1)
    fit = np.where(np.abs(fit) < TINY, TINY, fit)
    if fmt.symmetric:
        half = np.float32(1 << (fmt.bits - 1))
        return Candidates(round_scale(fit, 11)[None], -half, half - 1)
    last = np.float32((1 << fmt.bits) - 1)
    scales = round_scale(np.maximum(fit, TINY), ASYM_BITS)[None]
    return Candidates(scales, -zero[None], last - zero[None])

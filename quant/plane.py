"""Nearest plane in one block of 32 columns (Babai 1986; see quant.gptq), for many rows and candidate scales.

Compiled in plane.c, some thirty times as fast as the numpy path; that one is kept for installs without a compiler. They
sum in another order, so that a value half way between two codes may fall to either side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quant.blocks import BLOCK
from quant.scales import Candidates

try:
    from quant import _plane

    KERNEL = True
    """Whether the compiled path is there."""
except ImportError:
    KERNEL = False

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Coded:
    """codes [32, rows], whole numbers counted from the zero point; scale, zero and cost [rows]; all float32."""

    codes: Floats
    scale: Floats
    zero: Floats
    cost: Floats


def nearest_plane(target: Floats, carried: Floats, factor: Floats, tried: Candidates) -> Coded:
    """Codes of one block with each candidate scale, and of those the ones of least cost per row.

    target, carried: float32 [32, rows]; what the errors of the blocks before want added is in `carried`. factor: the
    block's corner [32, 32] of V. The cost of a row is the sum of squares of its error times V, over the block.
    """
    diagonal = np.ascontiguousarray(np.diagonal(factor))
    normal = np.ascontiguousarray((factor / diagonal).T)
    low = np.ascontiguousarray(np.broadcast_to(tried.low, tried.scales.shape), np.float32)
    if KERNEL:
        codes, cost, which = _compiled(target, carried, normal, diagonal, tried, low)
    else:
        codes, cost, which = _numpy(target, carried, normal, diagonal, tried)
    return Coded(
        codes,
        np.take_along_axis(tried.scales, which, axis=0)[0],
        np.take_along_axis(-low, which, axis=0)[0],
        cost,
    )


def better(first: Coded, second: Coded) -> Coded:
    """Row by row the one of less cost; the first where they are equal."""
    wins = second.cost < first.cost
    return Coded(
        np.where(wins, second.codes, first.codes),
        np.where(wins, second.scale, first.scale),
        np.where(wins, second.zero, first.zero),
        np.where(wins, second.cost, first.cost),
    )


Found = tuple[Floats, Floats, NDArray[np.int32]]
"""Codes [32, rows], cost [rows] and which candidate [1, rows]."""


def _compiled(
    target: Floats, carried: Floats, normal: Floats, diagonal: Floats, tried: Candidates, low: Floats
) -> Found:
    rows = target.shape[1]
    codes, cost = np.empty((BLOCK, rows), np.float32), np.empty(rows, np.float32)
    which = np.empty(rows, np.int32)
    span = float(np.max(np.asarray(tried.high) - np.asarray(tried.low)))
    target, carried = np.ascontiguousarray(target), np.ascontiguousarray(carried)
    scales = np.ascontiguousarray(tried.scales)
    _plane.nearest_plane(target, carried, normal, diagonal, scales, low, codes, cost, which, span)
    return codes, cost, which[None]


def _numpy(target: Floats, carried: Floats, normal: Floats, diagonal: Floats, tried: Candidates) -> Found:
    count, rows = tried.scales.shape
    inverse = np.float32(1) / tried.scales
    errors = np.empty((BLOCK, count, rows), np.float32)
    codes = np.empty_like(errors)
    costs = np.zeros((count, rows), np.float32)
    for j in range(BLOCK):
        made_up = (normal[j, :j] @ errors[:j].reshape(j, count * rows)).reshape(count, rows)
        wanted = made_up + (target[j] + carried[j])
        code = np.rint(np.clip(wanted * inverse, tried.low, tried.high))
        value = code * tried.scales
        codes[j] = code
        errors[j] = target[j] - value
        costs += np.square((wanted - value) * diagonal[j])
    which = costs.argmin(axis=0)[None]
    best = np.take_along_axis(codes, which[None], axis=1)[:, 0]
    return best, np.take_along_axis(costs, which, axis=0)[0], which.astype(np.int32)

"""Moments of a linear layer's inputs over a text, and the weight that they ask for (see quant.calibrate)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from converters.forward import Floats
from quant.gptq import damp

MOST_SHRINKAGE = 4.0
ROWS = 256
"""Of a matrix widened to float64 at once."""


@dataclass(frozen=True)
class Pair:
    """Inputs of a linear layer in both streams [length, columns], and where its output is added to them the
    difference of the residual streams [length, rows] and how much each token counts [length]."""

    exact: Floats
    coded: Floats
    residual: Floats | None = None
    shares: Floats | None = None


@dataclass(frozen=True)
class Moments:
    """Means over tokens, each by its share: hessian z z^T and cross x z^T [columns, columns], residual r z^T
    [rows, columns]. shrinkage: how little the products of different columns are to be trusted."""

    hessian: Floats
    cross: Floats
    residual: Floats | None
    shrinkage: float


def moments_of(pairs: Iterable[Pair]) -> Moments:
    """Over all tokens of `pairs`, a window each, of which there is one at least."""
    hessian: Floats | None = None
    cross: Floats | None = None
    squares: Floats | None = None
    residual: Floats | None = None
    tokens, windows = 0.0, 0
    for pair in pairs:
        # A root on either side keeps H a product of a matrix with itself, which BLAS does in half the time.
        root = np.float32(1) if pair.shares is None else np.sqrt(pair.shares)[:, None]
        coded = pair.coded * root
        product = coded.T @ coded
        hessian = _add(hessian, product)
        squares = _add(squares, np.square(product, out=product))
        cross = _add(cross, (pair.exact * root).T @ coded)
        if pair.residual is not None:
            residual = _add(residual, (pair.residual * root).T @ coded)
        tokens += len(coded) if pair.shares is None else float(pair.shares.sum(dtype=np.float64))
        windows += 1
    if hessian is None or cross is None or squares is None:
        raise ValueError("no windows")
    shrinkage = shrinkage_of(hessian, squares, windows)
    for total in (hessian, cross) if residual is None else (hessian, cross, residual):
        total /= tokens
    return Moments(hessian, cross, residual, shrinkage)


def _add(total: Floats | None, part: Floats) -> Floats:
    """In place where there is something already."""
    if total is None:
        return part.copy()
    total += part
    return total


def shrinkage_of(total: Floats, squares: Floats, windows: int) -> float:
    """The share of the diagonal to add to it, for correlations known from so many windows.

    total, squares [n, n]: sums over windows of their second moments, and of the squares of those. Schaefer and
    Strimmer 2005 (doi 10.2202/1544-6115.1175), equation 8 with their target D: correlations r_ij are shrunk by
    sum Var(r_ij) / sum r_ij^2. The variance is that between windows, since a window's tokens are not independent.
    With few windows, or such as have little in common, only the diagonal is believed.
    """
    diagonal = np.diagonal(total).astype(np.float64)
    inverse = 1 / np.where(diagonal > 0, diagonal, np.inf)
    known = -float(np.square(diagonal * inverse).sum())
    within = -float((np.diagonal(squares) * np.square(inverse)).sum())
    for start in range(0, len(inverse), ROWS):
        part = slice(start, start + ROWS)
        known += float(inverse[part] @ np.square(total[part], dtype=np.float64) @ inverse)
        within += float(inverse[part] @ squares[part].astype(np.float64) @ inverse)
    if windows < 2 or not known > 0:
        return MOST_SHRINKAGE
    share = (within * windows - known) / (windows - 1) / known
    return min(MOST_SHRINKAGE, share / (1 - share)) if share < 1 else MOST_SHRINKAGE


def target(
    matrix: Floats, moments: Moments, *, upstream: float, residual: float, damping: float, shrinkage: float
) -> Floats:
    """The real-valued weight that best makes up for what was lost before: W + (W (C - H) + B) H^-1, H damped."""
    missing = upstream * (matrix @ (moments.cross - moments.hessian))
    if moments.residual is not None:
        missing += residual * moments.residual
    damped = moments.hessian.astype(np.float64)
    damp(damped, damping, shrinkage)
    correction: Floats = np.linalg.solve(damped, missing.T.astype(np.float64)).T.astype(np.float32)
    return matrix + correction

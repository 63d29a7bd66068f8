"""Moments of a linear layer's inputs over a text, and the weight that they ask for (see quant.calibrate)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from converters.forward import Floats
from quant.gptq import damp


@dataclass(frozen=True)
class Pair:
    """Inputs of a linear layer in both streams [length, columns], and where its output is added to them the
    difference of the residual streams [length, rows] and how much each token counts [length]."""

    exact: Floats
    coded: Floats
    residual: Floats | None = None
    shares: Floats | None = None


@dataclass
class Moments:
    """Means over tokens, each by its share: hessian z z^T and cross x z^T [columns, columns], residual r z^T
    [rows, columns]."""

    hessian: Floats
    cross: Floats
    residual: Floats | None

    def add(self, other: Moments) -> None:
        self.hessian += other.hessian
        self.cross += other.cross
        if self.residual is not None and other.residual is not None:
            self.residual += other.residual

    def divide(self, total: float) -> None:
        self.hessian /= total
        self.cross /= total
        if self.residual is not None:
            self.residual /= total


def moments_of(pairs: Iterable[Pair]) -> Moments:
    """Over all tokens of `pairs`, of which there is one at least."""
    total: Moments | None = None
    counted = 0.0
    for pair in pairs:
        # A root on either side keeps H a product of a matrix with itself, which BLAS does in half the time.
        root = np.float32(1) if pair.shares is None else np.sqrt(pair.shares)[:, None]
        coded = pair.coded * root
        part = Moments(
            coded.T @ coded,
            (pair.exact * root).T @ coded,
            None if pair.residual is None else (pair.residual * root).T @ coded,
        )
        counted += len(coded) if pair.shares is None else float(pair.shares.sum(dtype=np.float64))
        if total is None:
            total = part
        else:
            total.add(part)
    if total is None:
        raise ValueError("no windows")
    total.divide(counted)
    return total


def target(
    matrix: Floats, moments: Moments, *, upstream: float, residual: float, damping: float, shrinkage: float
) -> Floats:
    """The real-valued weight that best makes up for what was lost before: W + (W (C - H) + B) H^-1."""
    missing = upstream * (matrix @ (moments.cross - moments.hessian))
    if moments.residual is not None:
        missing += residual * moments.residual
    damped = moments.hessian.astype(np.float64)
    damp(damped, damping, shrinkage)
    correction: Floats = np.linalg.solve(damped, missing.T.astype(np.float64)).T.astype(np.float32)
    return matrix + correction

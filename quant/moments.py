"""Moments of a linear layer's inputs over a text, and the weight that they ask for (see quant.calibrate)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from converters.forward import Floats


@dataclass(frozen=True)
class Pair:
    """Inputs of a linear layer in both streams [length, columns], and where its output is added the difference
    of the residual streams [length, rows]."""

    exact: Floats
    coded: Floats
    residual: Floats | None = None


@dataclass
class Moments:
    """Means over tokens: hessian z z^T, cross x z^T [columns, columns], residual r z^T [rows, columns]."""

    hessian: Floats
    cross: Floats
    residual: Floats | None

    def add(self, other: Moments) -> None:
        self.hessian += other.hessian
        self.cross += other.cross
        if self.residual is not None and other.residual is not None:
            self.residual += other.residual

    def divide(self, tokens: int) -> None:
        self.hessian /= tokens
        self.cross /= tokens
        if self.residual is not None:
            self.residual /= tokens


def moments_of(pairs: Iterable[Pair]) -> Moments:
    """Over all tokens of `pairs`, of which there is one at least."""
    total: Moments | None = None
    tokens = 0
    for pair in pairs:
        tokens += len(pair.coded)
        part = Moments(
            pair.coded.T @ pair.coded,
            pair.exact.T @ pair.coded,
            None if pair.residual is None else pair.residual.T @ pair.coded,
        )
        if total is None:
            total = part
        else:
            total.add(part)
    if total is None:
        raise ValueError("no windows")
    total.divide(tokens)
    return total


def target(matrix: Floats, moments: Moments, *, upstream: float, residual: float, damping: float) -> Floats:
    """The real-valued weight that best makes up for what was lost before: W + (W (C - H) + B) H^-1."""
    missing = upstream * (matrix @ (moments.cross - moments.hessian))
    if moments.residual is not None:
        missing += residual * moments.residual
    damped = moments.hessian.astype(np.float64)
    diagonal = np.einsum("ii->i", damped)
    diagonal += damping * diagonal.mean()
    correction: Floats = np.linalg.solve(damped, missing.T.astype(np.float64)).T.astype(np.float32)
    return matrix + correction

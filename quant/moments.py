"""Moments of a linear layer's inputs over a text, and the weight that they ask for (see quant.calibrate)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    """Weighted means over tokens: hessian z z^T, cross x z^T [columns, columns], residual r z^T [rows, columns]."""

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


def moments_of(pairs: Iterator[Pair], importance: Sequence[Floats | None]) -> list[Moments]:
    """One set for each of `importance`: token weights [windows, length], or None where all count alike."""
    totals: list[Moments] = []
    tokens = 0
    for window, pair in enumerate(pairs):
        tokens += len(pair.coded)
        for i, weights in enumerate(importance):
            part = _part(pair, None if weights is None else np.sqrt(weights[window])[:, None])
            if window:
                totals[i].add(part)
            else:
                totals.append(part)
    for total in totals:
        total.divide(tokens)
    return totals


def _part(pair: Pair, root: Floats | None) -> Moments:
    exact, coded, residual = pair.exact, pair.coded, pair.residual
    if root is not None:
        exact, coded = exact * root, coded * root
        residual = None if residual is None else residual * root
    return Moments(coded.T @ coded, exact.T @ coded, None if residual is None else residual.T @ coded)


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

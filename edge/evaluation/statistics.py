"""Estimates with their standard errors, as llama.cpp's llama-perplexity defines them.

Every error takes the predictions as independent draws; neighbouring tokens of one text are not quite, so the true
errors are somewhat larger.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A figure and its standard error."""

    value: float
    error: float

    def to_data(self) -> dict[str, float]:
        return {"value": self.value, "error": self.error}


def mean(values: Values) -> Estimate:
    """The mean; its error is the standard deviation over sqrt(n - 1)."""
    return Estimate(float(values.mean()), float(values.std() / math.sqrt(max(values.size - 1, 1))))


def perplexity(nll: Values) -> Estimate:
    """exp of the mean negative log-likelihood (nats); the error by the delta method."""
    log = mean(nll)
    value = math.exp(min(log.value, 700.0))  # a broken artifact's stays a number
    return Estimate(value, value * log.error)


def quantile(values: Values, share: float) -> Estimate:
    """The `share` quantile, linear between order statistics.

    The error is half the distance of the order statistics one binomial standard deviation, sqrt(n p (1 - p)),
    below and above: the distribution-free 68 % interval (David and Nagaraja, Order Statistics, 3rd ed., 7.1).
    """
    spread = math.sqrt(share * (1 - share) / values.size)
    low, middle, high = np.quantile(values, [max(share - spread, 0.0), share, min(share + spread, 1.0)])
    return Estimate(float(middle), float(high - low) / 2)


def share(hits: NDArray[np.bool_]) -> Estimate:
    """How often, with the binomial error sqrt(p (1 - p) / (n - 1))."""
    p = float(hits.mean())
    return Estimate(p, math.sqrt(p * (1 - p) / max(hits.size - 1, 1)))

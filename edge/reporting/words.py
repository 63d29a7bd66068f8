"""Figures as the page writes them."""

from __future__ import annotations

import math

from edge.evaluation.statistics import Estimate


def percent(share: float, places: int = 1) -> str:
    """0.0914 as 9.1%."""
    return f"{share * 100:.{places}f}%"


def nats(value: float) -> str:
    """Three significant digits."""
    return f"{value:.3g}"


def estimate(found: Estimate, factor: float = 1.0, unit: str = "") -> str:
    """The value and its standard error, to the second digit of the error: 0.353 ± 0.012."""
    value, error = found.value * factor, found.error * factor
    if not (math.isfinite(error) and error > 0):
        return f"{value:.4g}{unit}"
    places = min(6, max(0, 1 - math.floor(math.log10(error))))
    return f"{value:.{places}f} ± {error:.{places}f}{unit}"

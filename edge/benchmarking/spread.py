"""Repeated measurements as what they are: a middle and a spread, never one number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Spread:
    """`samples` in the order they were taken (at least one), in one unit."""

    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        return self.quantile(0.5)

    def quantile(self, share: float) -> float:
        """The value below which `share` of the samples lie, interpolated linearly (R's type 7)."""
        return float(np.quantile(self.samples, share))

    def over(self, other: Spread) -> Spread:
        """Ratio of each sample to the one of `other` that was taken beside it: what both suffered cancels."""
        return Spread(tuple(a / b for a, b in zip(self.samples, other.samples, strict=True)))

    def to_data(self) -> dict[str, Any]:
        return {
            "median": self.median,
            "min": min(self.samples),
            "max": max(self.samples),
            "q1": self.quantile(0.25),
            "q3": self.quantile(0.75),
            "samples": list(self.samples),
        }

"""Scales, ticks and the frame of a chart with two axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edge.reporting.svg import coordinate, element, label, text_width

TOP = 48.0  # title and the y label below it
BOTTOM = 40.0  # tick labels and the x label


def number(value: float) -> str:
    """Four significant digits, as a person writes them: 0.05, 1536, 1.2M, 2e-05."""
    size = abs(value)
    if size >= 1e9:
        return f"{value / 1e9:.3g}G"
    if size >= 1e6:
        return f"{value / 1e6:.3g}M"
    if size >= 1e5:
        return f"{value / 1e3:.0f}k"
    return f"{value:.0f}" if size >= 1000 else f"{value:.4g}"


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten that cover [low, high], about `count` of them."""
    span = (high - low) or abs(high) or 1.0
    rough = span / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, max(last, first + 1) + 1)]


def decades(low: float, high: float) -> list[float]:
    """Powers of ten that cover [low, high]; both above zero."""
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    return [10.0**i for i in range(first, max(last, first + 1) + 1)]


@dataclass(frozen=True)
class Scale:
    """Maps [low, high] of the data onto [start, stop] of the drawing, evenly or by logarithm."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high = (math.log10(v) if self.log else v for v in (self.low, self.high))
        at = math.log10(max(value, self.low)) if self.log else value
        return self.start + (at - low) / ((high - low) or 1.0) * (self.stop - self.start)


@dataclass(frozen=True)
class Frame:
    """The plot's rectangle in a drawing of width x height."""

    left: float
    right: float
    top: float
    bottom: float

    def draw(
        self,
        x: Callable[[float], float],
        y: Callable[[float], float],
        x_ticks: Sequence[float],
        y_ticks: Sequence[float],
        x_label: str,
        y_label: str,
    ) -> list[str]:
        """Horizontal grid lines, tick labels that do not touch, and the names of the axes."""
        parts = [label(0.0, 34.0, y_label, "faint")]
        for tick in y_ticks:
            at = y(tick)
            parts += [
                element(
                    "path",
                    class_="grid",
                    d=f"M{coordinate(self.left)} {coordinate(at)}H{coordinate(self.right)}",
                ),
                label(self.left - 6, at + 4, number(tick), "faint end"),
            ]
        parts.append(
            element(
                "path",
                class_="axis",
                d=f"M{coordinate(self.left)} {coordinate(self.bottom)}H{coordinate(self.right)}",
            )
        )
        free = -math.inf
        for tick in x_ticks:
            half = text_width(number(tick)) / 2
            if x(tick) - half >= free:
                parts.append(label(x(tick), self.bottom + 16, number(tick), "faint middle"))
                free = x(tick) + half + 6
        parts.append(label((self.left + self.right) / 2, self.bottom + 33, x_label, "faint middle"))
        return parts


def left_margin(y_ticks: Sequence[float]) -> float:
    """Room for the labels of the y axis."""
    return 8 + max(text_width(number(t)) for t in y_ticks)

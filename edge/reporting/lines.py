"""Line charts: measured points joined, each line named at its end."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from edge.reporting.axes import BOTTOM, TOP, Frame, Scale, decades, left_margin, nice_ticks, number
from edge.reporting.svg import LIGHT, coordinate, document, element, label, shorten, text_width, tip

NAME_LENGTH = 28
LINE_HEIGHT = 14.0
MOST_POINT_TICKS = 9


class Point(NamedTuple):
    """Where a line passes, and what the measurement varied between."""

    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True)
class Series:
    """A named line through the points (x[i], y[i]), in any order of x; a point that is not finite is left out.

    low, high: what each point varies between, drawn as a thin vertical line; none where they are empty.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()

    def points(self) -> list[Point]:
        """The finite points, by x."""
        found = zip(self.x, self.y, self.low or self.y, self.high or self.y, strict=True)
        return sorted(Point(*map(float, each)) for each in found if all(map(math.isfinite, each)))


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str,
    y_label: str,
    from_zero: bool = True,
    log_x: bool = False,
    width: float = 480.0,
    height: float = 280.0,
) -> str:
    """A standalone SVG. `from_zero` lets the y axis begin at 0, which ratios of lengths need.

    ValueError when no series has a finite point, or `log_x` meets an x that is not above 0.
    """
    points = [s.points() for s in series]
    every = [p for line in points for p in line]
    if not every:
        raise ValueError(f"{title}: no finite point to draw")
    xs, ys = sorted({p.x for p in every}), [y for p in every for y in (p.low, p.high)]
    if log_x and xs[0] <= 0:
        raise ValueError(f"{title}: x = {xs[0]:g} has no logarithm")
    y_ticks = nice_ticks(min(0.0, *ys) if from_zero else min(ys), max(ys))
    x_ticks = (
        xs if len(xs) <= MOST_POINT_TICKS else decades(xs[0], xs[-1]) if log_x else nice_ticks(xs[0], xs[-1])
    )
    names = [shorten(s.name, NAME_LENGTH) for s in series]
    margin = 14 + max(map(text_width, names)) if len(series) > 1 else 4 + text_width(number(x_ticks[-1])) / 2
    frame = Frame(left_margin(y_ticks), width - margin, TOP, height - BOTTOM)
    x = Scale(min(xs[0], x_ticks[0]), max(xs[-1], x_ticks[-1]), frame.left, frame.right, log_x)
    if len(xs) == 1:  # one depth only: in the middle
        x = Scale(xs[0] - 1, xs[0] + 1, frame.left, frame.right)
    y = Scale(y_ticks[0], y_ticks[-1], frame.bottom, frame.top)
    body = frame.draw(x, y, x_ticks, y_ticks, x_label, y_label)
    for i, (one, line) in enumerate(zip(series, points, strict=True)):
        body += _line(i % len(LIGHT), one.name, line, x, y)
    if len(series) > 1:
        ends = [y(line[-1].y) if line else frame.bottom for line in points]
        for i, at in enumerate(_apart(ends, frame.top, frame.bottom)):
            body.append(label(frame.right + 8, at + 4, names[i], f"f{i % len(LIGHT)}"))
    return document(width, height, title, _describe(series, points, x_label, y_label), *body)


def _line(colour: int, name: str, points: Sequence[Point], x: Scale, y: Scale) -> Iterable[str]:
    if len(points) > 1:
        path = "L".join(f"{coordinate(x(p.x))} {coordinate(y(p.y))}" for p in points)
        yield element("path", class_=f"line s{colour}", d="M" + path)
    for p in points:
        px, py = x(p.x), y(p.y)
        between = f", {number(p.low)} to {number(p.high)}" if p.low < p.high else ""
        words = tip(f"{name}: {number(p.y)} at {number(p.x)}{between}")
        if between:
            span = f"M{coordinate(px)} {coordinate(y(p.low))}V{coordinate(y(p.high))}"
            yield element("path", class_=f"s{colour}", d=span)
        # Shape tells the series apart where colour cannot.
        if colour % 3 == 0:
            yield element("circle", words, class_=f"f{colour}", cx=px, cy=py, r=3.5)
        elif colour % 3 == 1:
            yield element("rect", words, class_=f"f{colour}", x=px - 3, y=py - 3, width=6, height=6)
        else:
            d = f"M{coordinate(px)} {coordinate(py - 4)}l4 7h-8z"
            yield element("path", words, class_=f"f{colour}", d=d)


def _apart(wanted: Sequence[float], top: float, bottom: float) -> list[float]:
    """Positions near the wanted ones, a line's height apart and within [top, bottom] where they fit."""
    order = sorted(range(len(wanted)), key=lambda i: (wanted[i], i))
    placed = list(wanted)
    low = top
    for i in order:
        placed[i] = max(wanted[i], low)
        low = placed[i] + LINE_HEIGHT
    high = bottom
    for i in reversed(order):
        placed[i] = min(placed[i], high)
        high = placed[i] - LINE_HEIGHT
    return placed


def _describe(series: Sequence[Series], points: Sequence[Sequence[Point]], x_label: str, y_label: str) -> str:
    lines = [
        f"{s.name}: {number(p[0].y)} at {number(p[0].x)} to {number(p[-1].y)} at {number(p[-1].x)}"
        for s, p in zip(series, points, strict=True)
        if p
    ]
    return f"{y_label} over {x_label}. " + "; ".join(lines)

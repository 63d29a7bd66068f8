"""Scatter charts of variants: each a named point, those that no other betters joined by the Pareto front."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edge.reporting.axes import BOTTOM, TOP, Frame, Scale, decades, left_margin, nice_ticks, number
from edge.reporting.svg import coordinate, document, element, label, shorten, text_width, tip

NAME_LENGTH = 28
HEIGHT = 15.0
"""Of a name, with room to the next."""
RADIUS = 4.0


@dataclass(frozen=True)
class Dot:
    """A variant at (x, y); of both, less is better, or with `more_x` more of x. note: what a pointer is told too."""

    name: str
    x: float
    y: float
    note: str = ""


def front(values: Sequence[Sequence[float]]) -> list[bool]:
    """Of points of which less is better in every coordinate: whether no other is as good in all and better in one."""

    def better(one: Sequence[float], other: Sequence[float]) -> bool:
        return all(a <= b for a, b in zip(one, other, strict=True)) and tuple(one) != tuple(other)

    return [not any(better(other, own) for other in values) for own in values]


def scatter_chart(
    dots: Sequence[Dot],
    *,
    title: str,
    x_label: str,
    y_label: str,
    more_x: bool = False,
    log_y: bool = False,
    width: float = 560.0,
    height: float = 360.0,
) -> str:
    """A standalone SVG. On the front a dot is full, off it a ring; names stand beside where they touch nothing.

    With `log_y` a y that is not above 0 is drawn at the lowest tick, a decade below all others. ValueError when no dot
    is finite.
    """
    dots = [d for d in dots if math.isfinite(d.x) and math.isfinite(d.y)]
    above = [d.y for d in dots if d.y > 0 or not log_y]
    if not above:
        raise ValueError(f"{title}: no finite point to draw")
    xs = [d.x for d in dots]
    x_ticks = nice_ticks(min(0.0, *xs), max(xs))
    lowest = min(above) / (10 if len(above) < len(dots) else 1)
    y_ticks = decades(lowest, max(above)) if log_y else nice_ticks(min(0.0, *above), max(above))
    frame = Frame(left_margin(y_ticks), width - 4 - text_width(number(x_ticks[-1])) / 2, TOP, height - BOTTOM)
    x = Scale(x_ticks[0], x_ticks[-1], frame.left, frame.right)
    y = Scale(y_ticks[0], y_ticks[-1], frame.bottom, frame.top, log_y)
    best = front([(-d.x if more_x else d.x, d.y) for d in dots])
    body = frame.draw(x, y, x_ticks, y_ticks, x_label, y_label)
    body += _line([d for d, on in zip(dots, best, strict=True) if on], x, y)
    places = [(x(d.x), y(d.y)) for d in dots]
    names = [shorten(d.name, NAME_LENGTH) for d in dots]
    for dot, on, (px, py), name, (left, base) in zip(
        dots, best, places, names, _beside(places, names, frame), strict=True
    ):
        told = f"{dot.name}: {y_label} {number(dot.y)}, {x_label} {number(dot.x)}"
        words = tip("; ".join(part for part in (told, dot.note) if part))
        kind = "f0" if on else "paper s6"
        body.append(element("circle", words, class_=kind, cx=px, cy=py, r=RADIUS))
        body.append(label(left, base, name, "" if on else "faint"))
    return document(width, height, title, _describe(dots, best, x_label, y_label), *body)


def _line(dots: Iterable[Dot], x: Scale, y: Scale) -> list[str]:
    """The front, by x."""
    points = [f"{coordinate(x(d.x))} {coordinate(y(d.y))}" for d in sorted(dots, key=lambda d: (d.x, d.y))]
    return [element("path", class_="line mark s0", d="M" + "L".join(points))] if len(points) > 1 else []


def _beside(
    places: Sequence[tuple[float, float]], names: Sequence[str], frame: Frame
) -> list[tuple[float, float]]:
    """Where each name begins, and its base line: right of its dot, else left, above or below, the first free place."""
    taken = [(px - RADIUS, py - RADIUS, px + RADIUS, py + RADIUS) for px, py in places]
    found = []
    for (px, py), name in zip(places, names, strict=True):
        wide, gap = text_width(name), RADIUS + 4
        options = [(px + gap, py + 4), (px - gap - wide, py + 4)]
        for step in range(1, 6):
            options += [(px + gap, py + 4 + side * step * HEIGHT * 0.6) for side in (-1, 1)]
            options += [(px - gap - wide, py + 4 + side * step * HEIGHT * 0.6) for side in (-1, 1)]
        inside = [
            (left, base)
            for left, base in options
            if left >= frame.left and left + wide <= frame.right + 20 and base >= frame.top - 4
        ]
        box = next(
            (b for b in (_box(at, wide) for at in inside) if not any(_touch(b, other) for other in taken)),
            _box((inside or options)[0], wide),
        )
        taken.append(box)
        found.append((box[0], box[3] - 3))
    return found


Box = tuple[float, float, float, float]


def _box(at: tuple[float, float], wide: float) -> Box:
    left, base = at
    return left, base - HEIGHT + 5, left + wide, base + 3


def _touch(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _describe(dots: Sequence[Dot], best: Sequence[bool], x_label: str, y_label: str) -> str:
    told = [
        f"{d.name}{' (on the front)' if on else ''}: {number(d.y)} at {number(d.x)}"
        for d, on in zip(dots, best, strict=True)
    ]
    return f"{y_label} over {x_label}. " + "; ".join(told)

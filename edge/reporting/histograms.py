"""Histograms, with marks for the figures that sum them up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge.reporting.axes import BOTTOM, TOP, Frame, Scale, decades, left_margin, nice_ticks, number
from edge.reporting.svg import coordinate, document, element, label, text_width, tip

ROW = 14.0
LOG_FLOOR = 1e-6  # of the largest value: what is smaller shares the first bar


def histogram(
    values: ArrayLike,
    *,
    title: str,
    x_label: str,
    bins: int = 40,
    log: bool = False,
    marks: Sequence[tuple[str, float]] = (),
    span: ArrayLike | None = None,
    width: float = 480.0,
    height: float = 280.0,
) -> str:
    """A standalone SVG of how many finite `values` (any shape) fall into each of `bins` equal intervals.

    With `log` the intervals are equal by logarithm; values of zero or below 1e-6 of the largest are counted in the
    first. marks: (name, value) as dashed lines. span: values that the axis covers too. ValueError when no value is
    finite.
    """
    data = _finite(values)
    if not data.size:
        raise ValueError(f"{title}: no finite value to draw")
    covered = data if span is None else np.concatenate([data, _finite(span)])
    log = log and bool(covered.max() > 0)
    edges, ticks = _edges(covered, bins, log)
    counts = np.histogram(np.clip(data, edges[0], edges[-1]), edges)[0]
    y_ticks = nice_ticks(0.0, float(counts.max()))
    top = TOP + ROW * len(marks)
    frame = Frame(left_margin(y_ticks), width - 4 - text_width(number(ticks[-1])) / 2, top, height - BOTTOM)
    x = Scale(edges[0], edges[-1], frame.left, frame.right, log)
    y = Scale(y_ticks[0], y_ticks[-1], frame.bottom, frame.top)
    body = frame.draw(x, y, ticks, y_ticks, x_label, "count")
    for i, count in enumerate(counts):
        a, b = x(edges[i]), x(edges[i + 1])
        words = tip(f"{number(edges[i])} to {number(edges[i + 1])}: {count}")
        box = {"x": a + 0.5, "y": y(count), "width": max(b - a - 1, 0.5), "height": frame.bottom - y(count)}
        body += [element("rect", words, class_="f0", **box)] if count else []
    for row, (name, value) in enumerate(sorted(marks, key=lambda mark: mark[1])):
        body += _mark(
            f"{name} {number(value)}", x(min(max(value, edges[0]), edges[-1])), row, len(marks), frame
        )
    described = ", ".join(f"{name} {number(value)}" for name, value in marks)
    return document(
        width, height, title, f"{data.size} values of {x_label}" + (f": {described}" if marks else ""), *body
    )


def _finite(values: ArrayLike) -> NDArray[np.float64]:
    data = np.asarray(values, dtype=np.float64).ravel()
    return data[np.isfinite(data)]


def _edges(data: NDArray[np.float64], bins: int, log: bool) -> tuple[Any, list[float]]:
    """Borders of the bars, float64 [bins + 1], and the ticks below them."""
    high = float(data.max())
    if log:
        low = max(float(data[data > 0].min()), high * LOG_FLOOR)
        ticks = decades(low, high)
        return np.geomspace(ticks[0], ticks[-1], bins + 1), ticks
    ticks = nice_ticks(float(data.min()), high)
    return np.linspace(ticks[0], ticks[-1], bins + 1), ticks


def _mark(words: str, at: float, row: int, rows: int, frame: Frame) -> list[str]:
    """A dashed line and its name above the plot: the leftmost highest, so that no line begins below another's name."""
    y = frame.top - 6 - ROW * (rows - 1 - row)
    right = at + text_width(words) + 4 < frame.right
    return [
        element(
            "path", class_="axis mark", d=f"M{coordinate(at)} {coordinate(y - 4)}V{coordinate(frame.bottom)}"
        ),
        label(at + (4 if right else -4), y, words, "halo" if right else "halo end"),
    ]

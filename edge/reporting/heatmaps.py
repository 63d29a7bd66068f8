"""Heatmaps: one cell a number, nine shades, and their scale."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from edge.reporting.axes import number
from edge.reporting.svg import LIGHT_STEPS, document, element, label, shorten, text_width, tip

CELL = 15.0
HEAD = 46.0  # title and column labels
FOOT = 40.0  # the scale
STEPS = len(LIGHT_STEPS)
MOST_ROW_LABELS = 48


def heatmap(
    values: ArrayLike,
    *,
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    title: str,
    unit: str,
    show: Callable[[float], str] = number,
    width: float = 480.0,
) -> str:
    """A standalone SVG of `values` [rows, columns]; darker (in a dark scheme lighter) is more.

    The shades divide [least, most] evenly. A value that is not finite is drawn as missing. `show` writes a value
    with its unit; `unit` names what is shown beside the scale. ValueError when the shape and the labels disagree
    or nothing is finite.
    """
    data = np.asarray(values, dtype=np.float64)
    if data.shape != (len(row_labels), len(column_labels)):
        raise ValueError(f"{title}: {data.shape} values, {len(row_labels)} x {len(column_labels)} labels")
    finite = data[np.isfinite(data)]
    if not finite.size:
        raise ValueError(f"{title}: no finite value to draw")
    low, high = float(finite.min()), float(finite.max())
    names = [shorten(name, 20) for name in row_labels]
    left = 8 + max(map(text_width, names))
    wide = (width - left) / data.shape[1]
    every = -(-len(names) // MOST_ROW_LABELS)
    body = [
        label(left + wide * (c + 0.5), HEAD - 6, shorten(name, 12), "faint middle")
        for c, name in enumerate(column_labels)
    ]
    for r, name in enumerate(names):
        if r % every == 0:
            body.append(label(left - 6, HEAD + CELL * r + CELL - 4, name, "faint end"))
        for c in range(data.shape[1]):
            value = float(data[r, c])
            known = bool(np.isfinite(value))
            words = tip(f"{row_labels[r]} {column_labels[c]}: {show(value) if known else 'not measured'}")
            shade = f"h{_step(value, low, high)}" if known else "none"
            box = {"x": left + wide * c, "y": HEAD + CELL * r, "width": wide - 1, "height": CELL - 1}
            body.append(element("rect", words, class_=shade, **box))
    height = HEAD + CELL * len(names) + FOOT
    body += _scale(left, height - FOOT + 14, min(width - left, 180.0), show(low), show(high), unit)
    most = int(np.where(np.isfinite(data), data, -np.inf).argmax())
    where = f"{row_labels[most // data.shape[1]]}, {column_labels[most % data.shape[1]]}"
    described = f"{unit}, from {show(low)} to {show(high)}; most at {where}"
    return document(width, height, title, described, *body)


def _step(value: float, low: float, high: float) -> int:
    return min(int((value - low) / ((high - low) or 1.0) * STEPS), STEPS - 1)


def _scale(left: float, y: float, width: float, low: str, high: str, unit: str) -> list[str]:
    wide = width / STEPS
    boxes = [
        element("rect", class_=f"h{i}", x=left + wide * i, y=y, width=wide, height=8) for i in range(STEPS)
    ]
    return [
        *boxes,
        label(left, y + 21, low, "faint"),
        label(left + width, y + 21, high, "faint end"),
        label(left + width + 10, y + 8, unit, "faint"),
    ]

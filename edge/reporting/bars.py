"""Stacked horizontal bars: what a whole is made of, and how wholes compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from edge.reporting.axes import number
from edge.reporting.svg import LIGHT, document, element, label, shorten, text_width, tip

HEAD = 28.0
ROW_GAP = 7.0
LEGEND_ROW = 18.0


@dataclass(frozen=True)
class Bar:
    """A labelled whole and its parts by name, none below 0; parts of one name share a colour in every bar."""

    label: str
    parts: Mapping[str, float]

    @property
    def total(self) -> float:
        return sum(self.parts.values())


def stacked_bars(
    bars: Sequence[Bar],
    *,
    title: str,
    show: Callable[[float], str] = number,
    width: float = 480.0,
    thickness: float = 20.0,
) -> str:
    """A standalone SVG; `show` writes a value with its unit. ValueError when there is nothing to draw."""
    longest = max((bar.total for bar in bars), default=0.0)
    if not longest > 0:
        raise ValueError(f"{title}: nothing to draw")
    names = list(dict.fromkeys(name for bar in bars for name, value in bar.parts.items() if value))
    labels = [shorten(bar.label, 22) for bar in bars]
    left = 8 + max(map(text_width, labels)) if any(labels) else 0.0
    room = width - left - 8 - max(text_width(show(bar.total)) for bar in bars)
    legend, top = _legend(names, width) if len(names) > 1 else ([], HEAD)
    body = list(legend)
    for r, bar in enumerate(bars):
        y = top + r * (thickness + ROW_GAP)
        middle = y + thickness / 2 + 4
        x = left
        body += [label(left - 8, middle, labels[r], "faint end")] if labels[r] else []
        for name, value in bar.parts.items():
            if value:
                wide = room * value / longest
                share = f"{value / bar.total:.1%}"
                words = tip(f"{bar.label} {name}: {show(value)} ({share})".strip())
                # A part too thin to be seen still shows that it is there.
                box = {"x": x, "y": y, "width": max(wide - 1, 0.6), "height": thickness}
                body.append(element("rect", words, class_=f"f{names.index(name) % len(LIGHT)}", **box))
                x += wide
        body.append(label(x + 6, middle, show(bar.total)))
    height = top + len(bars) * (thickness + ROW_GAP)
    return document(width, height, title, "; ".join(_describe(bar, show) for bar in bars), *body)


def _legend(names: Sequence[str], width: float) -> tuple[list[str], float]:
    """A swatch and a name each, in as many rows as they need; and where the bars begin."""
    parts, x, y = [], 0.0, HEAD + 8
    for i, name in enumerate(names):
        wide = 16 + text_width(name) + 10
        if x and x + wide > width:
            x, y = 0.0, y + LEGEND_ROW
        parts.append(element("rect", class_=f"f{i % len(LIGHT)}", x=x, y=y - 9, width=10, height=10))
        parts.append(label(x + 15, y, name))
        x += wide
    return parts, y + 12


def _describe(bar: Bar, show: Callable[[float], str]) -> str:
    inside = ", ".join(f"{name} {show(value)}" for name, value in bar.parts.items() if value)
    return f"{bar.label}: {show(bar.total)}" + (f" ({inside})" if len(bar.parts) > 1 else "")

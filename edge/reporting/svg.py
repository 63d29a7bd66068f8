"""SVG as text: elements, escaping, and the one style that every chart carries.

Same input, same bytes: attributes keep their order, coordinates have one decimal, and nothing random is named.
"""

from __future__ import annotations

import unicodedata
from html import escape

from edge.reporting.foreign import visible

FONT = 12.0

# Okabe and Ito's colours, told apart by every kind of colour vision; darker or lighter where a thin line on
# white or on black would be lost.
LIGHT = ("#0072b2", "#c75400", "#00805d", "#a8568a", "#8a6d00", "#3f8fc4", "#5b6168", "#000000")
DARK = ("#5eb3ee", "#f08a4b", "#3fc49c", "#dd9bc4", "#e3c04d", "#9cd3fa", "#9aa3ad", "#ffffff")
# One hue from nearly the background to the strongest contrast: order survives greyscale.
LIGHT_STEPS = (
    "#fdf3e4",
    "#fbe2c2",
    "#f8cd9a",
    "#f2b272",
    "#e8944d",
    "#d5752f",
    "#b9581c",
    "#943f12",
    "#672a0c",
)
DARK_STEPS = (
    "#241c17",
    "#3a2719",
    "#55341b",
    "#73431d",
    "#955422",
    "#b86a2d",
    "#d98743",
    "#f2ad6d",
    "#fddcb0",
)


def _rules(
    colours: tuple[str, ...], steps: tuple[str, ...], ink: str, faint: str, line: str, paper: str
) -> str:
    rules = [
        f".paper{{fill:{paper}}}",
        f".halo{{stroke:{paper}}}",
        f"text{{fill:{ink}}}",
        f".faint{{fill:{faint}}}",
        f".grid{{stroke:{line}}}",
        f".axis{{stroke:{faint}}}",
        f".none{{fill:{line}}}",
        *(f".s{i}{{stroke:{c}}}.f{i}{{fill:{c}}}" for i, c in enumerate(colours)),
        *(f".h{i}{{fill:{c}}}" for i, c in enumerate(steps)),
    ]
    return "".join(f".edge-chart {rule}" for rule in "".join(rules).replace("}.", "}\n.").split("\n"))


STYLE = (
    f".edge-chart text{{font:{FONT:g}px system-ui,-apple-system,'Segoe UI',Roboto,'Noto Sans',sans-serif;"
    "font-variant-numeric:tabular-nums}"
    ".edge-chart .title{font-size:14px;font-weight:600}"
    ".edge-chart .line{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}"
    ".edge-chart .end{text-anchor:end}.edge-chart .middle{text-anchor:middle}"
    ".edge-chart .mark{stroke-dasharray:3 3}"
    ".edge-chart .halo{stroke-width:3px;paint-order:stroke}"
    + _rules(LIGHT, LIGHT_STEPS, "#1c1f23", "#5f6670", "#e3e5e8", "#ffffff")
    + "@media (prefers-color-scheme:dark){"
    + _rules(DARK, DARK_STEPS, "#e8eaed", "#a2a9b3", "#34393f", "#1a1d21")
    + "}"
)


def text(value: object) -> str:
    """`value` as character data: escaped, and what cannot be seen (XML 1.0 allows little of it) made visible."""
    return escape(visible(str(value)))


def element(tag: str, *children: str, **attributes: object) -> str:
    """An element around ready markup. `class_` becomes class, an underscore a hyphen, a float one decimal."""
    written = "".join(f' {key.rstrip("_").replace("_", "-")}="{_value(v)}"' for key, v in attributes.items())
    return f"<{tag}{written}>{''.join(children)}</{tag}>" if children else f"<{tag}{written}/>"


def _value(value: object) -> str:
    return coordinate(value) if isinstance(value, float) else text(value)


def coordinate(value: float) -> str:
    """At most one decimal, no negative zero."""
    return f"{round(value, 1) + 0.0:.1f}".removesuffix(".0")


def label(x: float, y: float, words: object, class_: str = "") -> str:
    """Text at (x, y)."""
    return element("text", text(words), **({"class_": class_} if class_ else {}), x=x, y=y)


def tip(words: object) -> str:
    """What a pointer that rests on the enclosing element is told."""
    return element("title", text(words))


def document(width: float, height: float, title: str, description: str, *body: str) -> str:
    """A whole SVG, to stand alone or inside a page."""
    return element(
        "svg",
        element("title", text(title)),
        element("desc", text(description)),
        element("style", STYLE),
        element("rect", class_="paper", width=width, height=height),
        label(0.0, 15.0, title, "title"),
        *body,
        xmlns="http://www.w3.org/2000/svg",
        class_="edge-chart",
        role="img",
        aria_label=f"{title}. {description}",
        viewBox=f"0 0 {coordinate(width)} {coordinate(height)}",
        width=width,
        height=height,
    )


def text_width(words: str, size: float = FONT) -> float:
    """About how wide `words` will be, in pixels: fonts differ, so ample."""
    wide = sum(1 for c in words if unicodedata.east_asian_width(c) in "WF")
    return size * (0.58 * (len(words) - wide) + wide)


def shorten(words: str, most: int) -> str:
    """At most `most` characters, with an ellipsis for the rest."""
    return words if len(words) <= most else words[: most - 1] + "…"

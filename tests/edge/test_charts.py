"""Charts: well-formed, escaped, deterministic, and what is drawn stands where the numbers say."""

from __future__ import annotations

import re
from collections.abc import Callable
from xml.etree import ElementTree

import numpy as np
import pytest

from edge.charts import Bar, Series, heatmap, histogram, line_chart, stacked_bars
from edge.reporting.axes import Scale, decades, nice_ticks, number
from edge.reporting.lines import _apart
from edge.reporting.svg import DARK, DARK_STEPS, LIGHT, LIGHT_STEPS

HOSTILE = "<script>alert(1)</script> & \"quoted' \x00\x1b[31m \ud800"
SVG = "{http://www.w3.org/2000/svg}"


def charts(name: str = "a") -> dict[str, str]:
    return {
        "line": line_chart(
            [Series(name, [0, 512, 4096], [40.0, 38.5, 30.0]), Series(name, [0, 512], [9.0, float("nan")])],
            title=name,
            x_label=name,
            y_label=name,
        ),
        "histogram": histogram(
            [0.0, 1e-4, 0.02, 0.5, 3.0], title=name, x_label=name, log=True, marks=[(name, 0.02)]
        ),
        "heatmap": heatmap(
            [[0.08, 0.1], [float("nan"), 0.2]],
            row_labels=[name, "b"],
            column_labels=[name, "d"],
            title=name,
            unit=name,
        ),
        "bars": stacked_bars([Bar(name, {name: 3.0, "b": 1.0}), Bar("c", {name: 2.0})], title=name),
    }


def elements(svg: str, tag: str, class_: str) -> list[ElementTree.Element]:
    """Those of one tag that carry the class."""
    found = ElementTree.fromstring(svg).iter(f"{SVG}{tag}")
    return [e for e in found if class_ in e.get("class", "").split()]


@pytest.mark.parametrize("kind", charts())
def test_same_values_same_bytes(kind: str) -> None:
    assert charts()[kind] == charts()[kind]


@pytest.mark.parametrize("kind", charts())
def test_hostile_text_stays_text(kind: str) -> None:
    svg = charts(HOSTILE)[kind]
    root = ElementTree.fromstring(svg)  # raises unless well-formed
    assert {e.tag.removeprefix(SVG) for e in root.iter()} <= {
        "svg", "title", "desc", "style", "rect", "text", "path", "circle",
    }  # fmt: skip
    assert "alert(1)" in "".join(root.itertext())
    assert not re.search(r"\son\w+=|href|url\(|@import", svg)


@pytest.mark.parametrize("kind", charts())
def test_accessible_and_for_both_schemes(kind: str) -> None:
    root = ElementTree.fromstring(charts()[kind])
    assert root.get("role") == "img"
    assert root.get("aria-label", "").startswith("a. ")
    assert [child.tag.removeprefix(SVG) for child in root][:3] == ["title", "desc", "style"]
    assert "prefers-color-scheme:dark" in (root[2].text or "")


@pytest.mark.parametrize("kind", charts())
def test_everything_lies_inside_the_drawing(kind: str) -> None:
    root = ElementTree.fromstring(charts("a rather long name of a thing")[kind])
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    for e in root.iter():
        if e.tag in (f"{SVG}rect", f"{SVG}text"):
            x, y = float(e.get("x", 0)), float(e.get("y", 0))
            assert 0 <= x <= width
            assert 0 <= y <= height
            assert x + float(e.get("width", 0)) <= width + 0.5
            assert y + float(e.get("height", 0)) <= height + 0.5


def test_a_line_passes_through_its_points() -> None:
    svg = line_chart([Series("a", [2048, 0], [10.0, 20.0])], title="t", x_label="x", y_label="y")
    first, last = elements(svg, "circle", "f0")
    assert float(first.get("cx", 0)) < float(last.get("cx", 0))  # sorted by x
    assert float(first.get("cy", 0)) < float(last.get("cy", 0))  # 20 above 10
    bottom = max(float(e.get("y", 0)) for e in elements(svg, "text", "end"))
    top = min(float(e.get("y", 0)) for e in elements(svg, "text", "end"))
    # The axis begins at 0 and ends at 20: 10 lies halfway, to the rounding of one decimal and the text's baseline.
    assert float(last.get("cy", 0)) + 4 == pytest.approx((top + bottom) / 2, abs=0.2)


def test_points_that_are_not_finite_are_left_out() -> None:
    svg = line_chart([Series("a", [1, 2, 3], [1.0, float("inf"), 3.0])], title="t", x_label="x", y_label="y")
    assert len(elements(svg, "circle", "f0")) == 2
    assert "nan" not in svg
    assert "inf" not in svg


def test_names_at_the_ends_of_lines_do_not_touch() -> None:
    placed = _apart([50.0, 50.0, 51.0, 200.0], 0.0, 200.0)
    assert sorted(np.diff(sorted(placed)))[0] >= 14
    assert max(placed) <= 200


@pytest.mark.parametrize("log", [False, True])
def test_a_histogram_counts_every_finite_value(log: bool) -> None:
    values = np.concatenate([np.random.default_rng(0).lognormal(-3, 2, 500), [0.0, np.nan, np.inf]])
    svg = histogram(values, title="t", x_label="x", log=log)
    counts = [int((e[0].text or "").rpartition(": ")[2]) for e in elements(svg, "rect", "f0")]
    assert sum(counts) == 501


@pytest.mark.parametrize("values", [[0.0], [0.0, 0.0], [3.0], [-1.0, 1.0], [1e-30, 1e30]])
@pytest.mark.parametrize("log", [False, True])
def test_a_histogram_of_odd_values(values: list[float], log: bool) -> None:
    counts = elements(histogram(values, title="t", x_label="x", log=log), "rect", "f0")
    assert sum(int((e[0].text or "").rpartition(": ")[2]) for e in counts) == len(values)


def test_more_is_a_later_shade_and_missing_is_none() -> None:
    svg = heatmap(
        [[1.0, 2.0, float("nan"), 10.0]],
        row_labels=["r"],
        column_labels=["a", "b", "c", "d"],
        title="t",
        unit="u",
    )
    cells = {
        (e[0].text or ""): e.get("class") for e in ElementTree.fromstring(svg).iter(f"{SVG}rect") if len(e)
    }
    assert cells == {"r a: 1": "h0", "r b: 2": "h1", "r c: not measured": "none", "r d: 10": "h8"}


def test_a_heatmap_of_equal_values() -> None:
    svg = heatmap([[0.5, 0.5]], row_labels=["r"], column_labels=["a", "b"], title="t", unit="u")
    assert len(elements(svg, "rect", "h0")) == 3  # two cells and the scale's first


def test_parts_are_as_wide_as_they_are_large_and_keep_their_colour() -> None:
    svg = stacked_bars([Bar("x", {"p": 300.0, "q": 100.0}), Bar("y", {"q": 200.0})], title="t")
    p, (_, q1, q2) = elements(svg, "rect", "f0")[1], elements(svg, "rect", "f1")  # the first is the legend's
    wide = [float(e.get("width", 0)) + 1 for e in (p, q1, q2)]
    # One decimal each.
    assert wide[0] / wide[1] == pytest.approx(3, abs=0.01)
    assert wide[2] / wide[1] == pytest.approx(2, abs=0.01)


@pytest.mark.parametrize(
    "draw",
    [
        lambda: line_chart([Series("a", [1], [float("nan")])], title="t", x_label="x", y_label="y"),
        lambda: line_chart(
            [Series("a", [0, 1], [1.0, 2.0])], title="t", x_label="x", y_label="y", log_x=True
        ),
        lambda: histogram([float("nan")], title="t", x_label="x"),
        lambda: heatmap([[float("nan")]], row_labels=["a"], column_labels=["b"], title="t", unit="u"),
        lambda: heatmap([[1.0]], row_labels=["a", "b"], column_labels=["b"], title="t", unit="u"),
        lambda: stacked_bars([], title="t"),
        lambda: stacked_bars([Bar("a", {"b": 0.0})], title="t"),
    ],
)
def test_nothing_to_draw_is_an_error(draw: Callable[[], str]) -> None:
    with pytest.raises(ValueError, match="t: "):
        draw()


@pytest.mark.parametrize(("low", "high"), [(0, 41), (0, 0), (3, 3), (-5, 7), (0.001, 0.0042), (1e-9, 1e9)])
def test_ticks_cover_the_values(low: float, high: float) -> None:
    ticks = nice_ticks(low, high)
    assert ticks[0] <= low + 1e-12
    assert ticks[-1] >= high - 1e-12
    assert 2 <= len(ticks) <= 8


def test_decades_cover_the_values() -> None:
    assert decades(0.02, 3) == pytest.approx([0.01, 0.1, 1, 10])
    assert decades(1, 1) == pytest.approx([1, 10])


def test_a_logarithmic_scale_spaces_powers_evenly() -> None:
    scale = Scale(1, 100, 0, 200, log=True)
    assert [scale(1), scale(10), scale(100)] == pytest.approx([0, 100, 200])


def test_numbers_are_written_short() -> None:
    assert [number(v) for v in (0.0, 0.05, 1536.0, 123456.0, 2.5e6, 3.8e9, 2e-5)] == [
        "0", "0.05", "1536", "123k", "2.5M", "3.8G", "2e-05",
    ]  # fmt: skip


def contrast(a: str, b: str) -> float:
    """WCAG 2.1 contrast ratio of two sRGB colours."""

    def luminance(colour: str) -> float:
        channels = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    low, high = sorted([luminance(a), luminance(b)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(("paper", "colours"), [("#ffffff", LIGHT), ("#1a1d21", DARK)])
def test_colours_can_be_told_from_the_paper(paper: str, colours: tuple[str, ...]) -> None:
    # WCAG 2.1, 1.4.11: graphics need 3 to 1.
    assert min(contrast(paper, colour) for colour in colours) >= 3


@pytest.mark.parametrize(("paper", "steps"), [("#ffffff", LIGHT_STEPS), ("#1a1d21", DARK_STEPS)])
def test_shades_grow_away_from_the_paper(paper: str, steps: tuple[str, ...]) -> None:
    ratios = [contrast(paper, step) for step in steps]
    assert ratios == sorted(ratios)
    assert min(np.diff(np.log(ratios))) > 0.03

"""The Pareto front, and the chart that shows it."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest

from edge.charts import Dot, front, scatter_chart
from edge.reporting.axes import Frame
from edge.reporting.scatter import _beside, _box, _touch
from edge.reporting.svg import text_width

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "<script>alert(1)</script> & \"quoted' \x00\ud800"


def test_the_front_is_what_nothing_betters() -> None:
    assert front([(1, 3), (2, 2), (3, 1), (3, 3), (2, 2)]) == [True, True, True, False, True]
    assert front([(1, 1), (1, 2), (2, 1)]) == [True, False, False]
    assert front([]) == []


def test_every_point_off_the_front_is_bettered_by_one_on_it() -> None:
    values = np.random.default_rng(0).integers(0, 8, (60, 3)).astype(float)
    on = front(values.tolist())
    assert 0 < sum(on) < 60
    best = values[on]
    for value, kept in zip(values, on, strict=True):
        better = ((best <= value).all(axis=1) & (best < value).any(axis=1)).any()
        assert better != kept


def dots(name: str = "int4") -> list[Dot]:
    return [
        Dot("f16", 270.0, 0.0),
        Dot("int8", 140.0, 0.001, "fast"),
        Dot(name, 90.0, 0.05),
        Dot("bad", 150.0, 0.2),
    ]


def circles(svg: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(svg).iter(f"{SVG}circle"))


@pytest.mark.parametrize("log_y", [False, True])
def test_dots_stand_in_their_order_and_only_the_bettered_one_is_a_ring(log_y: bool) -> None:
    svg = scatter_chart(dots(), title="t", x_label="MB", y_label="KL", log_y=log_y)
    found = circles(svg)
    assert [e.get("class") for e in found] == ["f0", "f0", "f0", "paper s6"]
    x, y = ([float(e.get(key, "")) for e in found] for key in ("cx", "cy"))
    assert sorted(range(4), key=x.__getitem__) == [2, 1, 3, 0]
    assert sorted(range(4), key=y.__getitem__) == [3, 2, 1, 0]
    assert "int4 (on the front): 0.05 at 90" in svg
    assert "KL 0.001, MB 140; fast" in svg


def test_where_more_is_better_the_front_is_another() -> None:
    svg = scatter_chart(dots(), title="t", x_label="speed", y_label="KL", more_x=True)
    assert [e.get("class") for e in circles(svg)] == ["f0", "paper s6", "paper s6", "paper s6"]


def test_hostile_names_stay_text_and_the_same_values_give_the_same_bytes() -> None:
    one, other = (scatter_chart(dots(HOSTILE), title=HOSTILE, x_label="x", y_label="y") for _ in range(2))
    assert one == other
    tags = {e.tag.removeprefix(SVG) for e in ElementTree.fromstring(one).iter()}
    assert tags <= {"svg", "title", "desc", "style", "rect", "text", "path", "circle"}


def test_nothing_finite_is_refused_and_what_is_not_finite_left_out() -> None:
    with pytest.raises(ValueError, match="no finite point"):
        scatter_chart([Dot("a", float("nan"), 1.0)], title="t", x_label="x", y_label="y")
    drawn = scatter_chart(
        [Dot("a", 1.0, 1.0), Dot("b", 1.0, float("inf"))], title="t", x_label="x", y_label="y"
    )
    assert len(circles(drawn)) == 1


def test_names_of_dots_that_are_near_each_other_do_not_touch() -> None:
    places = [(100.0 + 3 * i, 150.0 + 2 * i) for i in range(5)]
    names = [f"variant {i}" for i in range(5)]
    found = _beside(places, names, Frame(40, 500, 48, 300))
    boxes = [_box(at, text_width(name)) for at, name in zip(found, names, strict=True)]
    assert not any(_touch(a, b) for i, a in enumerate(boxes) for b in boxes[:i])

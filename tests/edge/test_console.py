"""How figures and progress read."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.cli import console


@pytest.mark.parametrize(
    ("n", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (99_949, "99.9 kB"), (103_000_000, "103 MB"),
     (999_600_000, "1.0 GB"), (7.7e9, "7.7 GB"), (2e13, "20.0 TB")],
)  # fmt: skip
def test_size(n: float, text: str) -> None:
    assert console.size(n) == text


@given(st.floats(0, 1e15))
def test_size_is_never_off_by_more_than_its_digits(n: float) -> None:
    number, unit = console.size(n).split()
    shown = float(number) * 1000 ** ("B", "kB", "MB", "GB", "TB").index(unit)
    assert shown == pytest.approx(n, rel=0.051, abs=0.51)  # two digits at least, or whole bytes


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (59.94, "59.9 s"), (61, "1 min 1 s"), (3599.6, "1 h 0 min")]
)
def test_duration(seconds: float, text: str) -> None:
    assert console.duration(seconds) == text


@given(st.text())
def test_clean_text_is_one_printable_line(text: str) -> None:
    cleaned = console.clean(text)
    assert cleaned.isprintable()
    assert console.clean(cleaned) == cleaned
    if text.isprintable():
        assert cleaned == text


def test_lines_count_from_many_threads(capsys: pytest.CaptureFixture[str]) -> None:
    lines = console.Lines()
    lines.stage("convert", 8 * 1000 * 1000)
    threads = [threading.Thread(target=lambda: [lines.advance(1000) for _ in range(1000)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines.note("a note")
    lines.done()
    lines.done()
    note, summary = capsys.readouterr().err.splitlines()
    assert note == "note: a note"
    assert summary.startswith("convert: 8.0 MB, ")
    assert ", peak memory " in summary


def test_a_long_stage_gives_signs_of_life(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "LINE_SECONDS", 0.0)
    lines = console.Lines()
    lines.stage("download", 4000)
    lines.advance(1000)
    told = capsys.readouterr().err
    assert told.startswith("download: 1.0 kB of 4.0 kB, ")
    assert told.endswith(" left\n")


def test_table_columns_align() -> None:
    lines = console.table(("a", "b"), [("xxx", "1"), ("y", "22")])
    assert lines == ["a    b", "xxx  1", "y    22"]

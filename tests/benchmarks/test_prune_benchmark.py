"""The scores side by side: as much is pruned by each, and a rerun makes only what is missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import prune

Tiny = Callable[..., Path]


def test_each_score_prunes_as_much(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDGE_CACHE_DIR", str(tmp_path / "cache"))
    for name in ("technical", "fiction", "training"):
        (tmp_path / f"{name}.txt").write_text(" ".join(f"{name} {i % 97} and {i % 89}" for i in range(400)))
    words = ["prune", str(tmp_path / "out"), "--texts", str(tmp_path), "--model", str(tiny("phi4"))]
    words += ["--steps", "8", "--batch", "2", "--length", "32", "--windows", "2", "--keep", "0.5"]
    monkeypatch.setattr("sys.argv", [*words, "--scores", "platon"])
    prune.main()
    results = tmp_path / "out" / "results.jsonl"
    first = results.read_text()
    monkeypatch.setattr("sys.argv", words)
    prune.main()
    told = capsys.readouterr().out
    assert results.read_text().startswith(first)
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    assert len(rows) == 6
    for what in ("weights", "neurons"):
        of_it = [r for r in rows if r["what"] == what]
        assert {r["score"] for r in of_it} == {"platon", "sensitivity", "magnitude"}
        assert len({(r["parameters_after"], r["zeros"]) for r in of_it}) == 1
        assert all(r["technical KL"] > 0 for r in of_it)
    assert "unpruned: technical perplexity" in told
    assert "technical KL 0.000" in told

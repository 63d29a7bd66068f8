"""Variants as plans of `edge shrink`, measured, tabled and drawn; a rerun makes only what is missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import pareto
from edge.shrink import read_plan

Tiny = Callable[..., Path]
PLANS = """
["float16"]
step = [{do = "convert", precision = "f16"}]
["int4"]
step = [{do = "convert", precision = "int4"}]
["int4 healed"]
step = [{do = "heal", target = "android", rank = 4, iterations = 1}, {do = "convert", precision = "int4"}]
["half of neurons"]
step = [
    {do = "prune", neurons = 0.5, steps = 8, length = 32, batch = 2, window = 2},
    {do = "convert", precision = "f16"},
]
"""


@pytest.fixture
def run(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    pytest.importorskip("llama_cpp")
    monkeypatch.setenv("EDGE_CACHE_DIR", str(tmp_path / "cache"))
    for name in ("technical", "training"):
        (tmp_path / f"{name}.txt").write_text(" ".join(f"{name} {i % 97} and {i % 89}" for i in range(400)))
    (tmp_path / "plans.toml").write_text(PLANS)
    sizes = ["--windows", "1", "--length", "64", "--tokens", "4", "--runs", "2", "--threads", "1"]

    def call(*more: str) -> str:
        words = [str(tmp_path / "out"), "--texts", str(tmp_path), "--model", str(tiny("uneven"))]
        monkeypatch.setattr(
            "sys.argv", ["pareto", *words, "--plans", str(tmp_path / "plans.toml"), *sizes, *more]
        )
        pareto.main()
        return capsys.readouterr().out

    return call


def test_variants_are_measured_once_and_the_front_is_marked(run: Callable[..., str], tmp_path: Path) -> None:
    run("--only", "float16", "int4")
    results = tmp_path / "out" / "results.jsonl"
    first = results.read_text()
    told = run()
    assert results.read_text().startswith(first)
    rows = {r["name"]: r for r in map(json.loads, results.read_text().splitlines())}
    assert list(rows) == ["float16", "int4", "int4 healed", "half of neurons"]
    kl = {name: row["kl"][0] for name, row in rows.items()}
    size = {name: row["bytes"] for name, row in rows.items()}
    assert 0 <= kl["float16"] < kl["int4"] < kl["half of neurons"]
    assert kl["int4 healed"] != kl["int4"]  # it answers with its adapter
    assert size["int4"] < size["int4 healed"] < size["float16"] > size["half of neurons"]
    assert all(row["speed"][1] <= row["speed"][0] <= row["speed"][2] for row in rows.values())
    assert [line for line in told.splitlines() if line.startswith("int4 ") and line.endswith("yes")]
    for name in ("size.svg", "speed.svg"):
        assert "half of neurons" in (tmp_path / "out" / name).read_text()


def test_every_variant_of_the_default_is_a_plan(tmp_path: Path) -> None:
    for name, plan in pareto.variants(60).items():
        lines = ['model = "m"']
        for step in plan:
            lines += ["[[step]]", *(f"{key} = {json.dumps(value)}" for key, value in step.items())]
        (tmp_path / "plan.toml").write_text("\n".join([*lines, 'targets = ["android"]']))
        assert len(read_plan(tmp_path / "plan.toml").steps) == len(plan), name

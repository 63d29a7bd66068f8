"""The command that compares factored with dense, at a tiny size."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from benchmarks.losparse import measure, write_factored
from benchmarks.random_checkpoint import write_checkpoint
from benchmarks.shapes import SHAPES
from converters.checkpoint import Checkpoint
from converters.decoder import FactoredMlp
from converters.models import describe


def test_a_factored_checkpoint_has_the_shares_that_were_asked_for(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "dense", SHAPES["phi4"])
    write_factored(tmp_path / "dense", tmp_path / "thin", 0.5, 0.25)
    with Checkpoint.open(tmp_path / "thin") as checkpoint:
        mlp = describe(checkpoint).layers[0].mlp
    assert isinstance(mlp, FactoredMlp)
    for layer in (mlp.gate_up, mlp.down):
        out, columns = layer.b.rows, layer.a.shape[1]
        kept = layer.sparse.rows - 1
        assert kept == round(0.25 * out)
        assert sorted(row for row in layer.rows if row < kept) == list(range(kept))
        assert layer.a.rows % 32 == 0
        assert layer.a.rows * (out + columns) >= 0.5 * out * columns


def test_it_measures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_CACHE_DIR", str(tmp_path / "cache"))
    options = argparse.Namespace(precision="int4", prompt=8, runs=1, threads=1)
    (row,) = measure(tmp_path / "work", dict(SHAPES["phi4"]), [(0.1, 0.1)], options)
    assert row["bytes"] > 0
    assert min(row[name] for name in ("size_ratio", "decode_ratio", "first_token_ratio")) > 0

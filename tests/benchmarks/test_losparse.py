"""The command that compares factored with dense, at a tiny size."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from benchmarks.losparse import measure, write_factored
from benchmarks.random_checkpoint import write_checkpoint
from benchmarks.shapes import SHAPES
from converters.checkpoint import Checkpoint
from converters.models import describe


def test_a_factored_checkpoint_has_the_shares_that_were_asked_for(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "dense", SHAPES["phi4"])
    write_factored(tmp_path / "dense", tmp_path / "thin", 0.5, 0.25)
    with Checkpoint.open(tmp_path / "thin") as checkpoint:
        layer = describe(checkpoint).layers[0]
    mlp = layer.mlp.weights()
    for weights in ((layer.q, layer.k, layer.v), (layer.o,), mlp[:2], mlp[2:]):
        factors = [weight.factors for weight in weights if weight.factors]
        assert len(factors) == len(weights)
        assert len({each.a for each in factors}) == len({each.sparse for each in factors}) == 1
        out, (rank, columns) = sum(weight.rows for weight in weights), factors[0].a.shape
        kept = factors[0].sparse.rows - 1
        assert kept == round(0.25 * out)
        rows = [row for each in factors for row in each.rows]
        assert sorted(row for row in rows if row < kept) == list(range(kept))
        assert rank % 32 == 0
        assert rank * (out + columns) >= 0.5 * out * columns


def test_it_measures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_CACHE_DIR", str(tmp_path / "cache"))
    options = argparse.Namespace(precision="int4", prompt=8, runs=1, threads=1)
    (row,) = measure(tmp_path / "work", dict(SHAPES["phi4"]), [(0.1, 0.1)], options)
    assert row["bytes"] > 0
    assert min(row["size_ratio"], row["decode"]["q1"], row["first_token"]["q1"]) > 0

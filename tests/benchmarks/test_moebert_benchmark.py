"""The command that compares experts with the dense model, at a tiny size."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.moebert import flops_per_token, measure, rows
from benchmarks.moebert_encoder import compare, write_pair
from benchmarks.moebert_encoder import flops_per_token as encoder_flops
from converters.checkpoint import Checkpoint
from converters.models import describe


def test_flops_are_two_a_weight(tiny: Callable[..., Path]) -> None:
    """Of a plain model all matrices but the embedding's rows, which are looked up; and attention by the context."""
    for name in ("phi4-mini", "phi3-mini-4k"):
        with Checkpoint.open(tiny(name)) as checkpoint:
            decoder = describe(checkpoint)
        vectors = sum(w.shape[0] for w in decoder.weights() if not w.is_matrix)
        looked_up = 0 if decoder.tied else decoder.embedding.shape[0] * decoder.embedding.shape[1]
        assert flops_per_token(decoder)[0] == 2 * (decoder.parameters - vectors - looked_up)
        grown = flops_per_token(decoder, 10)[0] - flops_per_token(decoder)[0]
        assert grown == 10 * 4 * decoder.depth * decoder.attention.heads * decoder.attention.head_dim
    with Checkpoint.open(tiny("phi3.5-moe")) as checkpoint, pytest.raises(ValueError, match="router"):
        flops_per_token(describe(checkpoint))


def test_it_measures(tiny: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of the MLPs' work, as the split says."""
    monkeypatch.setenv("EDGE_CACHE_DIR", str(tmp_path / "cache"))
    options = argparse.Namespace(experts=4, steps=1, ranked=1, precision="int4", prompt=8, runs=1, threads=1)
    found = measure(str(tiny("phi4-mini")), tmp_path / "work", options)
    (ours, our_mlps), (theirs, their_mlps) = found["flops"]
    assert 4 * our_mlps == their_mlps
    assert theirs - ours == their_mlps - our_mlps
    lines = rows(found)
    assert len(lines) == 6
    assert all(len(line) == 4 for line in lines)
    assert found["artifacts"][0]["weight_bytes_per_token"] < found["artifacts"][1]["weight_bytes_per_token"]


def test_encoders_are_compared(tmp_path: Path) -> None:
    """A quarter of the MLPs' work, and all of the attention's; a rerun takes what is there."""
    shape = {"hidden_size": 32, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2}
    folders = write_pair(tmp_path, shape, "f32")
    stamps = [(folder / "model.onnx").stat().st_mtime_ns for folder in folders.values()]
    ours, theirs = (encoder_flops(tmp_path / f"{name}-checkpoint") for name in ("experts", "dense"))
    mlps = 2 * 2 * 2 * 32 * 256
    assert theirs == 2 * 2 * 4 * 32 * 32 + mlps
    assert theirs - ours == mlps * 3 // 4
    ratios = compare(write_pair(tmp_path, shape, "f32"), (1, 8), 3, 1)
    assert len(ratios) == 3
    assert min(ratios) > 0
    assert stamps == [(folder / "model.onnx").stat().st_mtime_ns for folder in folders.values()]

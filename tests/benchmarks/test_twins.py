"""Twins compute the same function from other weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks import twins
from converters.checkpoint import Checkpoint

IDS = [5, 17, 300, 42, 99, 7, 250, 1, 63, 8, 8, 500]


@pytest.mark.parametrize("name", ["phi3-mini-4k", "phi4-mini"])
@pytest.mark.parametrize("kind", twins.TWINS)
def test_twins_compute_the_same_logits(
    tiny: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str
) -> None:
    """Tied and untied, grouped heads, partial rotary."""
    width = {"phi3-mini-4k": 192, "phi4-mini": 288}[name]
    monkeypatch.setitem(twins.TWINS, "wide", lambda t, c: twins.wide(t, c, width=width))
    source = tiny(name, dtype="f32")
    twins.write_twin(source, tmp_path / "twin", kind)
    error, largest = twins.largest_difference(source, tmp_path / "twin", IDS)
    # Float32 sums in another order, over two layers; logits are of order 1.
    assert largest > 1
    assert error < 1e-4


def test_permuted_keeps_every_value_and_no_block(tiny: Callable[..., Path], tmp_path: Path) -> None:
    # Heads of two blocks: the values of a head trade places among themselves.
    source = tiny("phi3-mini-4k", dtype="f32", num_attention_heads=2, num_key_value_heads=2)
    twins.write_twin(source, tmp_path / "twin", "permuted")
    with Checkpoint.open(source) as one, Checkpoint.open(tmp_path / "twin") as other:
        for name in one.tensors:
            before, after = one.read(name), other.read(name)
            assert np.array_equal(np.sort(before, axis=None), np.sort(after, axis=None)), name
            if before.ndim == 2:
                blocks = np.sort(before.reshape(-1, 32), axis=1)
                moved = np.sort(after.reshape(-1, 32), axis=1)
                assert not {row.tobytes() for row in blocks} & {row.tobytes() for row in moved}, name


def test_rotation_takes_outliers_away(tiny: Callable[..., Path], tmp_path: Path) -> None:
    source = tiny("phi3-mini-4k", dtype="f32")
    with Checkpoint.open(source) as checkpoint:
        tensors = {name: checkpoint.read(name).astype(np.float64) for name in checkpoint.tensors}
        config = dict(checkpoint.config)
    gate = "model.layers.0.mlp.gate_up_proj.weight"
    tensors[gate][:, 7] *= 50
    turned, _ = twins.rotated(tensors, config)

    def peak(rows: np.ndarray) -> float:
        return float(np.abs(rows).max() / np.sqrt(np.mean(rows**2)))

    # One column of 128 that holds nearly all the energy peaks at sqrt(128) times a Gaussian's; turned, at a
    # Gaussian's own 4 to 6.
    assert peak(tensors[gate]) > 20
    assert peak(turned[gate]) < 8

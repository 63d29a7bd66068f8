"""A dense model as a mixture of experts: the same function before training, PhiMoE's afterwards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from converters.checkpoint import Checkpoint
from converters.errors import UnsupportedError
from converters.models import describe
from converters.reference import logits
from edge.convert import ConvertRequest, convert, plan
from edge.progress import Silent
from quant.adapters.training import load_model
from quant.distill.moe import MoeTraining, load_student, save, train
from quant.distill.training import Report, TrainOptions
from quant.distill.upcycle import Upcycling, lift, upcycle, widened

Tiny = Callable[..., Path]
IDS = [int(i) for i in np.random.default_rng(0).integers(3, 250, 40)]


def test_the_lift_keeps_lengths_and_has_no_mean() -> None:
    lifted = lift(np.eye(96, dtype=np.float32)).astype(np.float64)
    assert lifted.shape == (96, widened(96))
    np.testing.assert_allclose(lifted @ lifted.T, np.eye(96), atol=1e-6)
    np.testing.assert_allclose(lifted.sum(axis=1), 0, atol=1e-6)
    # Channels stay where they are, outliers too.
    assert np.diag(lifted).min() > 0.99


@pytest.mark.parametrize("shape", ["phi3-mini-4k", "phi3.5-mini", "phi4", "odd-heads"])
def test_the_mixture_says_what_the_dense_model_says(tiny: Tiny, tmp_path: Path, shape: str) -> None:
    """Exactly two experts of weight 1: with a tolerance so small that no two scores are a tie."""
    with Checkpoint.open(tiny(shape, dtype="f32")) as checkpoint:
        decoder = describe(checkpoint)
        upcycle(checkpoint, decoder, tmp_path, Upcycling(experts=4, jitter=1e-7))
        expected = logits(checkpoint, decoder, IDS)
    with Checkpoint.open(tmp_path) as checkpoint:
        mixture = describe(checkpoint)
        assert mixture.has_experts
        found = logits(checkpoint, mixture, IDS)
    # float32 through matrices with other entries.
    np.testing.assert_allclose(found, expected, atol=2e-4, rtol=0)


def test_trained_and_saved_it_is_what_was_trained(tiny: Tiny, tmp_path: Path) -> None:
    """The divergence falls, the routers learn, and what is saved says what the trained model says, in the converter's
    own reference."""
    before, after = tmp_path / "before", tmp_path / "after"
    for directory in (before, after):
        directory.mkdir()
    dense = tiny("phi3-mini-4k", dtype="f32", num_hidden_layers=2)
    with Checkpoint.open(dense) as checkpoint:
        upcycle(checkpoint, describe(checkpoint), before, Upcycling(experts=4, jitter=0.2))
    settings = MoeTraining(rate=1e-3)
    student, teacher = load_student(before, settings), load_model(dense)
    # It begins as the teacher: something must be there to learn.
    torch.manual_seed(0)
    with torch.no_grad():
        for layer in student.model.layers:
            layer.mlp.experts.down_proj.mul_(0)
    windows = np.random.default_rng(1).integers(3, 600, (16, 32))
    told: list[Report] = []
    train(student, teacher, windows, TrainOptions(steps=30, warm_up=3), settings, report=told.append)
    assert np.mean([r.losses["kl"] for r in told[-5:]]) < 0.7 * np.mean([r.losses["kl"] for r in told[:5]])
    with Checkpoint.open(before) as checkpoint:
        router = "model.layers.0.block_sparse_moe.gate.weight"
        moved = student.model.layers[0].mlp.router.weight.detach().numpy() - checkpoint.read(router)
        assert np.abs(moved).max() > 1e-3
        save(student, checkpoint, after)
    with torch.no_grad():
        expected = student.eval()(torch.tensor([IDS])).logits[0].numpy()
    with Checkpoint.open(after) as checkpoint:
        found = logits(checkpoint, describe(checkpoint), IDS)
    # As the parity tests of Phi-3.5-MoE: float32 sums in another order.
    np.testing.assert_allclose(found, expected, atol=2e-4, rtol=0)


def test_it_converts_with_a_proof(tiny: Tiny, tmp_path: Path) -> None:
    mixture = tmp_path / "mixture"
    mixture.mkdir()
    with Checkpoint.open(tiny("phi3-mini-4k")) as checkpoint:
        upcycle(checkpoint, describe(checkpoint), mixture, Upcycling())
    report = convert(
        plan(ConvertRequest(str(mixture), ("cpu",), context=64, output=tmp_path / "bundle")), Silent()
    )
    assert report.proof is not None
    assert report.proof["passed"]


def test_partly_rotated_heads_have_no_place(tiny: Tiny, tmp_path: Path) -> None:
    with Checkpoint.open(tiny("phi4-mini")) as checkpoint, pytest.raises(UnsupportedError, match="rotates"):
        upcycle(checkpoint, describe(checkpoint), tmp_path, Upcycling())

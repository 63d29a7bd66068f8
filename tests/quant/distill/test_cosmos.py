"""COSMOS against its equations written densely in numpy, its identities, its state's size, and exact resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from quant.distill.optimizers.cosmos import Cosmos, kept, newton_schulz
from quant.distill.training import TrainOptions, train

Matrix = NDArray[np.float64]
RATE, B1, B2, GAMMA, EPS = 0.01, 0.9, 0.95, 0.25, 1e-8


def gradients(rows: int, columns: int, steps: int) -> list[Matrix]:
    """With a spectrum that falls, as a gradient's does: the leading directions are well apart."""
    rng = np.random.default_rng(7)
    mix = rng.standard_normal((columns, columns)) @ np.diag(0.7 ** np.arange(columns))
    return [rng.standard_normal((rows, columns)) @ mix.T for _ in range(steps)]


def norm(x: Matrix) -> Matrix:
    return x * np.sqrt(x.shape[1]) / np.linalg.norm(x)


def quintic(x: Matrix) -> Matrix:
    """Newton-Schulz as what it does to the singular values."""
    u, s, vt = np.linalg.svd(x / np.linalg.norm(x), full_matrices=False)
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return (u * s) @ vt


def dense_steps(given: list[Matrix], rank: int) -> list[Matrix]:
    """Each step's change of W, with H written out."""
    m, v, changes = np.zeros_like(given[0]), 0.0, []
    for t, g in enumerate(given, 1):
        if t == 1:
            u = np.linalg.eigh(g.T @ g)[1][:, ::-1][:, :rank]
            s = (1 - B2) * u.T @ g.T @ g @ u
        else:
            h = B2 * u @ s @ u.T + (1 - B2) * g.T @ g
            u = np.linalg.qr(h @ u)[0]
            s = u.T @ h @ u
        m = B1 * m + (1 - B1) * g
        v = B2 * v + (1 - B2) * (g @ u) ** 2
        step = m @ u / (1 - B1**t) / (np.sqrt(v / (1 - B2**t)) + EPS) @ u.T
        outside = m - m @ u @ u.T
        if np.linalg.norm(outside) > 1e-5 * np.linalg.norm(m):
            step = step + GAMMA * np.sqrt(len(g)) * norm(quintic(outside))
        changes.append(-RATE * norm(step) * np.sqrt(len(g)))
    return changes


def taken(given: list[Matrix], rank: int, dtype: torch.dtype = torch.float64) -> tuple[list[Matrix], Any]:
    weight = torch.nn.Parameter(torch.zeros(given[0].shape, dtype=dtype))
    optimizer = Cosmos([{"params": [weight]}], rate=RATE, rank=rank, gamma=GAMMA, betas=(B1, B2), eps=EPS)
    changes = []
    for g in given:
        before = weight.detach().clone()
        weight.grad = torch.from_numpy(g).to(dtype)
        optimizer.step()
        changes.append((weight.detach() - before).double().numpy())
    return changes, optimizer.state[weight]


@pytest.mark.parametrize(("shape", "rank"), [((7, 5), 2), ((4, 9), 3), ((3, 8), 3), ((6, 6), 6)])
def test_steps_are_those_of_the_dense_equations(shape: tuple[int, int], rank: int) -> None:
    # (3, 8) at rank 3: all of the first gradient lies in the basis, and not all of the second.
    given = gradients(*shape, steps=6)
    for found, expected in zip(taken(given, rank)[0], dense_steps(given, rank), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-10)
        assert np.sqrt(np.mean(found**2)) == pytest.approx(RATE)


def test_float32_stays_close() -> None:
    given = gradients(12, 8, 6)
    for found, expected in zip(taken(given, 3, torch.float32)[0], dense_steps(given, 3), strict=True):
        # Rounding 6e-8, times the spread of the spectrum that the power iteration and the quintic see.
        np.testing.assert_allclose(found, expected, atol=1e-3 * RATE)


def test_a_whole_basis_keeps_the_second_moment_exactly_and_is_one_sided_soap() -> None:
    given = gradients(6, 5, 8)
    changes, state = taken(given, 5)
    h = np.zeros((5, 5))
    for g in given:
        h = B2 * h + (1 - B2) * g.T @ g
    u, s = state["basis"].numpy(), state["inner"].numpy()
    np.testing.assert_allclose(u @ s @ u.T, h, atol=1e-12)
    # SOAP with one side rotated: Adam in the basis U, turned back; here of fixed size.
    m, v = state["momentum"].numpy(), state["second"].numpy()
    t = len(given)
    soap = (m @ u / (1 - B1**t)) / (np.sqrt(v / (1 - B2**t)) + EPS) @ u.T
    np.testing.assert_allclose(changes[-1], -RATE * soap / np.sqrt(np.mean(soap**2)), rtol=1e-9)


def test_newton_schulz_flattens_the_spectrum() -> None:
    x = torch.from_numpy(gradients(9, 5, 1)[0])
    values = torch.linalg.svdvals(newton_schulz(x))
    assert float(torch.linalg.svdvals(x).max() / torch.linalg.svdvals(x).min()) > 5
    assert 0.6 < float(values.min()) <= float(values.max()) < 1.25
    torch.testing.assert_close(newton_schulz(x.T), newton_schulz(x).T)
    assert not newton_schulz(torch.zeros(3, 4)).any()


def test_vectors_go_the_way_of_adamw() -> None:
    ours, theirs = (torch.nn.Parameter(torch.ones(6)) for _ in range(2))
    group = {"params": [ours], "rank": 0, "weight_decay": 0.1}
    steps = (
        (ours, Cosmos([group], rate=RATE, betas=(B1, B2))),
        (theirs, torch.optim.AdamW([theirs], lr=RATE, betas=(B1, B2), weight_decay=0.1)),
    )
    for seed in range(5):
        for parameter, optimizer in steps:
            parameter.grad = torch.randn(6, generator=torch.Generator().manual_seed(seed))
            optimizer.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)  # float32, operations in another order


@pytest.mark.parametrize(("shape", "rank"), [((40, 24), 3), ((24, 40), 5), ((8, 4), 64)])
def test_the_state_has_the_computed_size(shape: tuple[int, int], rank: int) -> None:
    _, state = taken(gradients(*shape, steps=2), rank)
    tensors = [t for t in state.values() if isinstance(t, torch.Tensor)]
    assert sum(t.numel() for t in tensors) == kept(*shape, rank)
    assert sum(t.untyped_storage().nbytes() for t in tensors) == 8 * kept(*shape, rank), "no view of more"
    if rank < 64:
        assert kept(*shape, rank) < 1.4 * shape[0] * shape[1], "AdamW's is 2"


def test_a_resumed_run_has_the_same_bits(tmp_path: Path) -> None:
    def run(stop: int = 0) -> list[bytes]:
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(6, 9), torch.nn.Tanh(), torch.nn.Linear(9, 4))
        matrices = [p for p in model.parameters() if p.ndim == 2]
        vectors = [p for p in model.parameters() if p.ndim == 1]
        optimizer = Cosmos(
            [{"params": matrices, "rank": 2}, {"params": vectors, "rank": 0, "lr": 0.1}], rate=0.02
        )

        def losses(step: int) -> dict[str, torch.Tensor]:
            if stop and stop == step:
                raise RuntimeError("as if killed")
            x = torch.randn(5, 6, generator=torch.Generator().manual_seed(step))
            return {"fit": (model(x) - x[:, :4].sin()).square().mean()}

        options = TrainOptions(steps=9, save_every=2)
        train(model, optimizer, lambda step: step, losses, options, state=state)
        return [p.detach().numpy().tobytes() for p in model.parameters()]

    state = tmp_path / "whole.pt"
    whole, state = run(), tmp_path / "state.pt"
    with pytest.raises(RuntimeError):
        run(stop=5)
    assert run() == whole

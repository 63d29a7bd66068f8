"""LoSparse: factors that begin as the matrix, rows that go as a whole, and a checkpoint that computes the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from converters.checkpoint import Checkpoint
from converters.models import describe
from converters.reference import logits
from edge.convert import ConvertRequest, convert, plan
from edge.progress import Silent
from edge.runtimes import open_runtime
from quant.lowrank.factors import FactoredLinear, compact
from quant.lowrank.job import LoSparseJob
from quant.lowrank.model import load
from quant.lowrank.names import rank_of
from quant.lowrank.rows import RowImportance, Rows
from quant.prune import phi3
from quant.prune.importance import Smoothing
from quant.prune.settings import Settings
from quant.tensor_file import copy_side_files


def layer(
    out: int = 40, columns: int = 24, rank: int = 5, seed: int = 0
) -> tuple[torch.Tensor, FactoredLinear]:
    weight = torch.randn(out, columns, generator=torch.Generator().manual_seed(seed))
    return weight, FactoredLinear(weight, rank)


def test_it_begins_as_the_layer_that_it_was_made_of() -> None:
    weight, factored = layer()
    assert factored.low_rank_a.shape == (5, 24)
    assert factored.low_rank_b.shape == (40, 5)
    x = torch.randn(7, 24)
    # Two float32 sums in place of one.
    torch.testing.assert_close(factored(x), x @ weight.T, rtol=1e-5, atol=1e-5)
    # And no other matrices of that rank come closer (Eckart and Young): the rest is the tail of the spectrum.
    sigma = torch.linalg.svdvals(weight)
    assert factored.sparse.norm().item() == pytest.approx(sigma[5:].norm().item(), rel=1e-5)


def test_what_is_lost_is_the_rows_that_go() -> None:
    """At a fixed rank; more rows are never worse. (That rows beside factors beat factors alone of the same size is not
    so before training, and not claimed.)"""
    weight, factored = layer()
    norms = factored.sparse.detach().square().sum(1)
    rows, before = Rows({"x": factored}), np.inf
    for kept in range(0, 41, 8):
        _, fresh = layer()
        rows = Rows({"x": fresh})
        rows.select({"x": norms}, kept / 40)
        rows.apply()
        error = (weight - fresh.low_rank_b @ fresh.low_rank_a - fresh.sparse).square().sum().item()
        lost = norms.sort().values[: 40 - kept].sum().item()
        assert error == pytest.approx(lost, rel=1e-4, abs=1e-9)
        assert error < before
        before = error


def test_a_row_goes_whole_and_can_come_back() -> None:
    _, factored = layer()
    other = layer(seed=1)[1]
    rows = Rows({"a": factored, "b": other})
    importance = RowImportance(rows.parameters, Smoothing(window=1))
    x = torch.randn(9, 24)
    (factored(x).square().sum() + other(x).square().sum()).backward()
    importance.observe()
    assert {name: s.shape for name, s in importance.scores().items()} == {"a": (40,), "b": (40,)}
    rows.select(importance.scores(), 0.3)
    rows.apply()
    for s in rows.parameters.values():
        assert torch.equal((s != 0).any(1), (s != 0).all(1))
    assert sum(rows.to_data()["left"].values()) == 24
    factored.zero_grad()
    factored(x).square().sum().backward()
    gone = (factored.sparse == 0).all(1)
    assert gone.any()
    assert factored.sparse.grad is not None
    assert (factored.sparse.grad[gone] != 0).any(1).all()


def test_the_compact_form_is_the_same_function() -> None:
    """Also of a row whose values cancel in their sum."""
    _, factored = layer()
    with torch.no_grad():
        factored.sparse[::3] = 0
        factored.sparse[1] = torch.tensor([1.0, -1.0] * 12)
    parts = compact("x", factored)
    assert parts["x.sparse"].shape == (26 + 1, 24)
    x = torch.randn(6, 24)
    sparse = (x @ parts["x.sparse"].T)[:, parts["x.sparse_rows"].long()]
    found = x @ parts["x.low_rank_a"].T @ parts["x.low_rank_b"].T + sparse
    torch.testing.assert_close(found, factored(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("share", "rank"), [(0.05, 32), (0.5, 128), (0.51, 160), (1.0, 256)])
def test_ranks_are_whole_blocks(share: float, rank: int) -> None:
    """512 x 512: a rank of 256 share has `share` of the values."""
    assert rank_of(512, 512, share) == -(-int(256 * share) // 32) * 32 == rank


def test_small_matrices_have_a_rank_without_blocks() -> None:
    assert rank_of(24, 40, 0.5) == 8


@pytest.mark.parametrize("shape", ["phi4-mini", "phi4", "odd-heads"])
def test_the_checkpoint_computes_what_torch_does(
    shape: str, tiny: Callable[..., Path], tmp_path: Path
) -> None:
    """Grouped queries with LongRoPE; one key for all; heads whose width is no multiple of a block."""
    source = tiny(shape, dtype="f32")
    model = phi3.load(source)
    ids = np.random.default_rng(0).integers(model.config.vocab_size, size=24)
    before = _torch_logits(model, ids)
    job = LoSparseJob(model, Settings(keep=0.5, units={}, method="losparse", low_rank=0.3))
    assert len(job.pruner.parameters) == 4 * model.config.num_hidden_layers
    # As it was, to float32: LR + S is W.
    np.testing.assert_allclose(_torch_logits(model, ids), before, atol=2e-4)
    halve(job)
    phi3.save(*job.written(*phi3.header(source)), tmp_path)
    with Checkpoint.open(tmp_path) as checkpoint:
        found = logits(checkpoint, describe(checkpoint), ids)
        # Of the embedding, the rows of other tokens.
        assert set(checkpoint.unread()) <= {"model.embed_tokens.weight"}
    expected = _torch_logits(model, ids)
    assert np.abs(expected - before).max() > 0.1
    np.testing.assert_allclose(found, expected, atol=2e-4)


def halve(job: LoSparseJob) -> None:
    """Half of the rows go, the smaller ones."""
    job.pruner.select({n: s.detach().square().sum(1) for n, s in job.pruner.parameters.items()}, 0.5)
    job.pruner.apply()


def test_the_factored_model_is_the_dense_one_with_zeros(tiny: Callable[..., Path]) -> None:
    """What is trained and what ships is W with every pruned row of its S set to zero, in all four matrices."""
    model = phi3.load(tiny("phi4-mini", dtype="f32"))
    dense = phi3.load(tiny("phi4-mini", dtype="f32"))
    job = LoSparseJob(model, Settings(keep=0.5, units={}, method="losparse", low_rank=0.3))
    halve(job)
    with torch.no_grad():
        for name, layer in job.layers.items():
            whole = layer.low_rank_b @ layer.low_rank_a + layer.sparse
            dense.get_submodule(name).weight.copy_(whole)
    ids = np.random.default_rng(0).integers(model.config.vocab_size, size=24)
    np.testing.assert_allclose(_torch_logits(model, ids), _torch_logits(dense, ids), atol=2e-4)


def test_a_checkpoint_becomes_a_model_and_the_same_checkpoint_again(
    tiny: Callable[..., Path], tmp_path: Path
) -> None:
    """Its rows are as many parameters as were kept, so that training cannot bring the others back."""
    source = tiny("phi4-mini", dtype="f32")
    model = phi3.load(source)
    job = LoSparseJob(model, Settings(keep=0.5, units={}, method="losparse", low_rank=0.3))
    halve(job)
    for directory in ("a", "b"):
        (tmp_path / directory).mkdir()
    phi3.save(*job.written(*phi3.header(source)), tmp_path / "a")
    loaded = load(tmp_path / "a")
    kept = sum(len(p) for name, p in loaded.named_parameters() if name.endswith(".sparse"))
    assert kept == round(0.5 * job.pruner.total)
    ids = np.random.default_rng(0).integers(model.config.vocab_size, size=24)
    np.testing.assert_allclose(_torch_logits(loaded, ids), _torch_logits(model, ids), atol=2e-4)
    loaded.save_pretrained(tmp_path / "b")
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert (tmp_path / "a" / "config.json").read_text() == (tmp_path / "b" / "config.json").read_text()


@pytest.mark.parametrize("shape", ["phi4-mini", "phi4"])
def test_the_graph_computes_what_torch_does(shape: str, tiny: Callable[..., Path], tmp_path: Path) -> None:
    """Attention and MLP in factors, in onnxruntime, in float: thin products, rows, and one attention node a layer."""
    source = tiny(shape, dtype="f32")
    job = LoSparseJob(phi3.load(source), Settings(keep=0.5, units={}, method="losparse", low_rank=0.3))
    halve(job)
    thin = tmp_path / "thin"
    thin.mkdir()
    copy_side_files(source, thin)
    phi3.save(*job.written(*phi3.header(source)), thin)
    request = ConvertRequest(
        str(thin), ("cpu",), precision="f32", context=64, output=tmp_path / "b", proof=False
    )
    convert(plan(request), Silent())
    ids = np.random.default_rng(0).integers(3, 250, size=24)
    runtime = open_runtime(tmp_path / "b" / "onnx-f32", context_length=64, exact=True)
    found = runtime.teacher_forced(ids.tolist())
    runtime.close()
    # Sums of float32 in another order, over two layers.
    np.testing.assert_allclose(found, _torch_logits(load(thin), ids), atol=1e-4)


@torch.no_grad()
def _torch_logits(model: nn.Module, ids: np.ndarray) -> np.ndarray:
    return model(torch.from_numpy(ids)[None]).logits[0].numpy()

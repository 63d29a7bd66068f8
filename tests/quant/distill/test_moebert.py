"""MoEBERT: what a split keeps, routing, losses, and the checkpoint that comes of it."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from quant.distill.models import Batch, Examples, layers_of, load_model
from quant.distill.moebert import MoebertOptions, hidden_sum, losses, symmetric_kl, tables_of
from quant.distill.moebert_importance import mlp_ends
from quant.distill.moebert_model import load_student, split_student, write_student
from quant.distill.moebert_split import Split, balanced_table, deal, hash_table, plan_split, routing_tables
from quant.distill.training import TrainOptions
from tests.encoder_checkpoint import write_encoder
from tests.quant.distill.moebert_support import KINDS, Tiny, batch_of, wide_model


@pytest.fixture
def model(kind: Any, tiny: Tiny, tmp_path: Path) -> Any:
    return wide_model(kind, tiny, tmp_path)


def test_the_paper_s_split() -> None:
    """BERT-base: 512 neurons in every expert, 256 of its own in each; the last half of the ranks is nowhere."""
    split = plan_split(3072)
    assert split == Split(4, 768, 512)
    assert split.kept == 1536
    scores = np.random.default_rng(0).standard_normal(3072)
    order = np.argsort(-scores)
    dealt = deal(scores, split)
    assert dealt.shape == (4, 768)
    assert all(np.array_equal(row[:512], order[:512]) for row in dealt)
    own = dealt[:, 512:]
    assert np.unique(own).size == own.size == 1024
    assert set(own.ravel()) == set(order[512:1536])
    assert np.array_equal(own[1], order[513:1536:4])


def dense_and_student(model: Any, kind: Any, split: Split) -> tuple[Any, Any]:
    layers = len(layers_of(model))
    student = copy.deepcopy(model)
    inner = mlp_ends(layers_of(model)[0], kind)[1].in_features
    scores = np.random.default_rng(1).standard_normal((layers, inner))
    tables = routing_tables("hash", np.zeros(1, np.int64), model.config.vocab_size, split.experts, layers, 0)
    return model, split_student(student, kind, split, scores, tables)


def inside(module: Any, kind: Any, x: torch.Tensor) -> torch.Tensor:
    """Of an MLP all but BERT's residual and norm."""
    if kind == "decoder":
        return module(x)
    return module.output.dense(module.intermediate(x))


@pytest.mark.parametrize("kind", KINDS)
def test_experts_add_up_where_no_neuron_is_dropped(kind: Any, model: Any) -> None:
    """sum of experts - (N - 1) (shared part + b2) is the dense MLP when size = shared + (d - shared) / N; the experts
    alone do not add up to it, and none of them is it."""
    inner = mlp_ends(layers_of(model)[0], kind)[1].in_features
    shared = inner // 4
    split = Split(4, shared + (inner - shared) // 4, shared)
    dense, student = dense_and_student(model, kind, split)
    x = torch.randn(7, model.config.hidden_size, dtype=torch.float64)
    before, after = layers_of(dense)[0], layers_of(student)[0]
    experts = (after.mlp if kind == "decoder" else after.output).experts
    outputs = [inside(e, kind, x) for e in experts]
    first, second = mlp_ends(before, kind)
    top = deal(np.random.default_rng(1).standard_normal((len(layers_of(model)), inner))[0], split)[0][:shared]
    z = first(x)
    a = (
        before.intermediate.intermediate_act_fn(z)
        if kind == "encoder"
        else functional.silu(z[:, :inner]) * z[:, inner:]
    )
    common = a[:, top] @ second.weight[:, top].T + (0 if second.bias is None else second.bias)
    whole = inside(before.mlp if kind == "decoder" else before, kind, x)
    torch.testing.assert_close(sum(outputs) - 3 * common, whole, rtol=1e-10, atol=1e-12)
    assert (sum(outputs) - whole).abs().max() > 1e-3
    assert (outputs[0] - whole).abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_one_expert_of_all_neurons_is_the_dense_model(kind: Any, model: Any) -> None:
    inner = mlp_ends(layers_of(model)[0], kind)[1].in_features
    dense, student = dense_and_student(model, kind, Split(1, inner, inner))
    batch = batch_of(kind)
    logits = [m(input_ids=batch.ids, attention_mask=batch.mask.long()).logits for m in (dense, student)]
    torch.testing.assert_close(logits[0], logits[1], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_s_expert_depends_on_nothing_else(kind: Any, model: Any) -> None:
    """The batch's order and size move nothing; another expert's weights do nothing to a token that is not its."""
    inner = mlp_ends(layers_of(model)[0], kind)[1].in_features
    _, student = dense_and_student(model, kind, Split(4, inner // 4, inner // 8))
    batch, extra = batch_of(kind, size=4), {} if kind == "encoder" else {"use_cache": False}
    whole = student(input_ids=batch.ids, attention_mask=batch.mask.long(), **extra).logits
    order = torch.tensor([2, 0, 3, 1])
    turned = student(input_ids=batch.ids[order], attention_mask=batch.mask[order].long(), **extra).logits
    torch.testing.assert_close(turned, whole[order], rtol=1e-10, atol=1e-12)
    module = layers_of(student)[0].mlp if kind == "decoder" else layers_of(student)[0].output
    module._ids.now = batch.ids
    x = torch.randn(4, 9, model.config.hidden_size, dtype=torch.float64)
    before = module(x)
    with torch.no_grad():
        mlp_first = (
            module.experts[2].gate_up_proj if kind == "decoder" else module.experts[2].intermediate.dense
        )
        mlp_first.weight.mul_(2)
    moved = (module(x) - before).abs().amax(-1) > 0
    assert torch.equal(moved, module.table[batch.ids] == 2)
    assert moved.any()
    assert not moved.all()


@pytest.mark.parametrize("kind", ["decoder"])
def test_word_by_word_is_all_at_once(kind: Any, model: Any) -> None:
    _, student = dense_and_student(model, kind, Split(4, 64, 32))
    ids = batch_of(kind).ids
    whole, cache = student(input_ids=ids).logits, None
    for t in range(ids.shape[1]):
        out = student(input_ids=ids[:, t : t + 1], past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        torch.testing.assert_close(out.logits[:, 0], whole[:, t], rtol=1e-8, atol=1e-10)


def test_tables() -> None:
    """Every layer draws its own; the same seed the same. Balanced: no expert has more than one token's count more."""
    one, other = hash_table(5000, 4, 0, 0), hash_table(5000, 4, 0, 1)
    assert np.array_equal(one, hash_table(5000, 4, 0, 0))
    assert (one != other).mean() > 0.5
    assert np.bincount(one).min() > 1000
    counts = np.random.default_rng(0).zipf(1.3, 5000).clip(0, 4000)
    counts[::3] = 0
    table = balanced_table(counts, 4, 0, 0)
    loads = np.bincount(table, weights=counts, minlength=4)
    assert np.ptp(loads) <= counts.max()
    hashed = np.bincount(one, weights=counts, minlength=4)
    assert np.ptp(loads) < np.ptp(hashed) / 10
    assert np.bincount(table[counts == 0], minlength=4).min() > 300


def test_losses_are_the_paper_s(tmp_path: Path) -> None:
    """Symmetric in its two models; the sum of all hidden states, embeddings among them; padding has no say."""
    torch.manual_seed(0)
    p, q = torch.randn(5, 3), torch.randn(5, 3)
    assert symmetric_kl(p, q) == symmetric_kl(q, p)
    a, b = p.softmax(-1), q.softmax(-1)
    expected = ((a * (a / b).log() + b * (b / a).log()).sum() / 2 / 5).item()
    assert symmetric_kl(p, q).item() == pytest.approx(expected, rel=1e-5)
    mask = torch.tensor([[True, True, False]])
    states = [torch.randn(1, 3, 4) for _ in range(6)]
    found = hidden_sum(states[:3], states[3:], mask)
    each = [(s - t)[:, :2].square().mean() for s, t in zip(states[:3], states[3:], strict=True)]
    torch.testing.assert_close(found, sum(each))
    model = load_model(write_encoder(tmp_path / "bert", layers=2), "encoder").eval()
    _, student = dense_and_student(model, "encoder", Split(4, 12, 8))
    batch = batch_of("encoder")
    terms = losses(batch, model, student, "encoder", 2.0)
    assert set(terms) == {"task", "hidden", "kl"}
    other = batch.ids.clone()
    other[~batch.mask] = 3
    same = losses(Batch(other, batch.mask, batch.labels), model, student, "encoder", 2.0)
    for name, term in terms.items():
        torch.testing.assert_close(term, same[name], rtol=1e-5, atol=1e-7)
    again = losses(batch, model, student, "encoder", 1.0)
    torch.testing.assert_close(terms["hidden"], 2 * again["hidden"])
    same_model = losses(batch, model, copy.deepcopy(model), "encoder", 1.0)
    assert same_model["hidden"] == 0
    assert same_model["kl"].abs() < 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_the_checkpoint_is_the_student(kind: Any, tiny: Tiny, tmp_path: Path) -> None:
    """Routing tables included, which no seed has to make again."""
    source = tiny("phi4-mini", dtype="f32") if kind == "decoder" else write_encoder(tmp_path / "bert")
    model = load_model(source, kind).eval()
    _, student = dense_and_student(model, kind, Split(4, 12, 8))
    config = json.loads((source / "config.json").read_text())
    (tmp_path / "out").mkdir()
    write_student(student, kind, Split(4, 12, 8), config, tmp_path / "out")
    loaded, batch = load_student(tmp_path / "out"), batch_of(kind)
    with torch.no_grad():
        logits = [m(input_ids=batch.ids, attention_mask=batch.mask.long()).logits for m in (student, loaded)]
    assert torch.equal(logits[0], logits[1])


def test_tables_come_of_the_text_s_tokens(tmp_path: Path) -> None:
    model = load_model(write_encoder(tmp_path / "bert"), "encoder")
    ids, mask = np.array([[4, 5, 6, 0], [4, 7, 0, 0]]), np.array([[1, 1, 1, 0], [1, 1, 0, 0]], bool)
    options = MoebertOptions(Split(2, 12, 8), TrainOptions(1), routing="hash-balance")
    tables = tables_of(model, Examples(ids, mask, np.array([0, 1])), options)
    assert tables.shape == (4, 12)
    # The token that comes twice is alone against two others; padding (0) counts for nothing.
    for table in tables:
        assert (table[[5, 6, 7]] == table[4]).sum() <= 1

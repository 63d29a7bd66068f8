"""CAMERO's identities: what agrees costs nothing, the mean of the heads is one head, and noise is its noise alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from quant.distill.camero import (
    Camero,
    Heads,
    camero_losses,
    consistency,
    distill,
    merge_heads,
    perturbed_logits,
    split_head,
)
from quant.distill.losses import task_loss
from quant.distill.models import Examples
from quant.distill.order import TedOptions
from quant.distill.training import TrainOptions

RNG = np.random.default_rng(0)
EXAMPLES = Examples(
    RNG.integers(3, 60, (12, 10)), np.arange(10) < RNG.integers(3, 11, (12, 1)), RNG.integers(0, 3, 12)
)
BATCH = EXAMPLES.batch(np.arange(6))
OPTIONS = TedOptions("ft", TrainOptions(steps=4, seed=1), rate=1e-3, batch=4, kl=0.0)
SIZES: dict[str, Any] = {
    "vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48,
    "max_position_embeddings": 32, "num_labels": 3,
}  # fmt: skip


def encoder(dropout: float = 0.1, family: str = "bert") -> Any:
    rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    torch.manual_seed(5)
    if family == "roberta":
        return RobertaForSequenceClassification(RobertaConfig(**SIZES, **rates))
    return BertForSequenceClassification(BertConfig(**SIZES, **rates))


def value(scalar: torch.Tensor) -> float:
    return float(scalar.detach())


def scatter(heads: Heads) -> None:
    """Heads that differ, as training leaves them."""
    torch.manual_seed(8)
    with torch.no_grad():
        for parameter in heads.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))


@pytest.mark.parametrize("target", ["ensemble", "pairwise"])
def test_identical_heads_without_perturbation_agree(target: Any) -> None:
    student = encoder(dropout=0.0).train()
    heads = split_head(student, 3)
    settings = Camero(heads=3, target=target)
    with torch.no_grad():
        terms = camero_losses(BATCH, None, student, heads, OPTIONS, settings)
    plain = task_loss(encoder(dropout=0.0)(BATCH.ids, BATCH.mask.long()).logits, BATCH)
    assert value(terms["consistency"]) == pytest.approx(0, abs=1e-12)
    assert value(terms["task"]) == pytest.approx(value(plain), rel=1e-6)
    assert set(terms) == {"task", "consistency"}


@pytest.mark.parametrize("target", ["ensemble", "pairwise"])
def test_dropout_or_other_heads_disagree(target: Any) -> None:
    def found(dropout: float, other: bool) -> float:
        student = encoder(dropout).train()
        heads = split_head(student, 3)
        if other:
            scatter(heads)
        torch.manual_seed(2)
        return value(consistency(perturbed_logits(BATCH, student, heads, Camero(heads=3)), target))

    assert found(0.2, other=False) > 1e-5
    assert found(0.0, other=True) > 1e-3


def test_r3f_is_normal_noise_of_its_size_on_the_embeddings_of_each_pass() -> None:
    student = encoder(dropout=0.0).train()
    heads, seen = split_head(student, 2), []
    first = student.bert.encoder.layer[0]
    hook = first.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    one, other = perturbed_logits(BATCH, student, heads, Camero(2, "r3f", noise=1e-3))
    noisy = len(seen)
    perturbed_logits(BATCH, student, heads, Camero(2, "r3f", noise=0.0))
    hook.remove()
    assert noisy == 2
    for found in seen[:2]:
        noise = found - seen[2]
        assert value(noise.std()) == pytest.approx(1e-3, rel=0.1)
        assert value(noise.mean()) == pytest.approx(0, abs=1e-4)
    assert not torch.equal(seen[0], seen[1])
    assert not torch.equal(one, other)
    assert not student.base_model.embeddings._forward_hooks, "the noise is gone with the pass"


def test_consistency_is_the_symmetric_kl_of_the_equations() -> None:
    torch.manual_seed(4)
    logits = [torch.randn(5, 3) for _ in range(2)]

    def kl(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
        p, q = p.softmax(-1), q.softmax(-1)
        return (p * (p / q).log()).sum(-1).mean()

    one, two = logits
    mean = (one + two) / 2
    both = sum(kl(each, mean) + kl(mean, each) for each in logits) / 2
    torch.testing.assert_close(consistency(logits, "ensemble"), both)
    # Of two heads each is the other's next, whichever way the cycle goes.
    torch.testing.assert_close(consistency(logits, "pairwise"), kl(one, two) + kl(two, one))


def test_pairwise_is_one_cycle_through_all_heads() -> None:
    # Distances that say which pairs were compared: only neighbours of a cycle, each head once on each side.
    logits = [torch.tensor([[3.0 * i, 0.0]], requires_grad=True) for i in range(4)]
    seen = set()
    for seed in range(30):
        torch.manual_seed(seed)
        seen.add(round(value(consistency(logits, "pairwise")), 4))
    assert len(seen) == 3, (
        "four heads have three cycles, up to direction, which the symmetric KL does not see"
    )
    consistency(logits, "pairwise").backward()
    assert all(each.grad is not None and each.grad.any() for each in logits)


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_the_mean_of_the_heads_is_one_head(family: str) -> None:
    student = encoder(family=family)
    heads = split_head(student, 5)
    scatter(heads)
    student.eval()
    with torch.no_grad():
        mean = student(BATCH.ids, BATCH.mask.long()).logits
        each = perturbed_logits(BATCH, student, heads, Camero(5))
        merge_heads(student)
        one = student(BATCH.ids, BATCH.mask.long()).logits
    torch.testing.assert_close(mean, torch.stack(each).mean(0))
    torch.testing.assert_close(one, mean, rtol=1e-6, atol=1e-6)  # float32 sums in another order
    assert {n: p.shape for n, p in student.named_parameters()} == {
        n: p.shape for n, p in encoder(family=family).named_parameters()
    }


def test_heads_with_poolers_of_their_own_have_no_such_mean() -> None:
    """Why the pooler is shared here: tanh of averaged weights is not the average of tanh."""
    torch.manual_seed(1)
    x, dense, out = torch.randn(7, 8), torch.randn(3, 8, 8), torch.randn(3, 2, 8)
    mean = torch.stack(
        [functional.linear(functional.linear(x, d).tanh(), o) for d, o in zip(dense, out, strict=True)]
    )
    one = functional.linear(functional.linear(x, dense.mean(0)).tanh(), out.mean(0))
    assert value((mean.mean(0) - one).abs().max()) > 0.1


@pytest.mark.parametrize("settings", [Camero(3), Camero(2, "r3f", "pairwise", 5.0)])
def test_training_leaves_a_checkpoint_with_one_head(settings: Camero, tmp_path: Path) -> None:
    teacher, student, told = encoder(), encoder(), []
    before = {name: p.clone() for name, p in teacher.named_parameters()}
    last = distill(
        teacher,
        student,
        EXAMPLES,
        OPTIONS,
        settings,
        report=lambda stage, report: told.append((stage, report.loss)),
    )
    assert set(last) == {"task", "consistency"}
    assert [stage for stage, _ in told] == ["heads"] * 4
    assert all(torch.equal(p, before[name]) for name, p in teacher.named_parameters())
    assert any(not torch.equal(p, before[name]) for name, p in student.named_parameters())
    student.eval().save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        expected, found = (m(BATCH.ids, BATCH.mask.long()).logits for m in (student, again))
    assert torch.equal(expected, found)


def test_the_teacher_teaches_the_mean_where_it_is_asked_to() -> None:
    teacher = encoder(dropout=0.0).eval()
    student = encoder(dropout=0.0).train()
    heads = split_head(student, 2)
    terms = camero_losses(BATCH, teacher, student, heads, replace(OPTIONS, kl=1.0), Camero(2))
    assert value(terms["kl"]) == pytest.approx(0, abs=1e-9), "a copy has nothing to learn"
    scatter(heads)
    assert (
        value(camero_losses(BATCH, teacher, student, heads, replace(OPTIONS, kl=1.0), Camero(2))["kl"]) > 1e-3
    )


def test_an_interrupted_run_ends_with_the_same_bits(tmp_path: Path) -> None:
    def run(stop: int = 0, state: Path | None = None) -> list[bytes]:
        def told(stage: str, report: Any) -> None:
            if report.step == stop:
                raise RuntimeError("as if killed")

        student = encoder()
        options = replace(OPTIONS, train=replace(OPTIONS.train, save_every=1))
        settings = Camero(3, "r3f", "pairwise")
        distill(encoder(), student, EXAMPLES, options, settings, state=state, report=told)
        return [p.detach().numpy().tobytes() for p in student.parameters()]

    whole = run()
    with pytest.raises(RuntimeError):
        run(stop=3, state=tmp_path)
    assert run(state=tmp_path) == whole

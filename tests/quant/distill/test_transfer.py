"""Transfer: nothing changes at step 0, the pieces are the largest, heads and neurons stay whole."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from quant.distill.losses import task_loss
from quant.distill.models import Examples, layers_of, load_model
from quant.distill.order import TedOptions
from quant.distill.run import Run, distill_checkpoint
from quant.distill.training import TrainOptions
from quant.distill.transfer import (
    Heads,
    Lora,
    best_pair,
    block_sums,
    chosen_layers,
    merge,
    sensitivity,
    transfer,
)

RNG = np.random.default_rng(2)
WORDS = Examples(RNG.integers(0, 600, (6, 16)), np.ones((6, 16), bool))


@pytest.fixture(scope="module")
def places(tiny: Callable[..., Path]) -> tuple[Path, Path]:
    narrow = {"hidden_size": 96, "num_attention_heads": 3, "num_key_value_heads": 1, "intermediate_size": 128}
    return tiny("phi4-mini", num_hidden_layers=4), tiny("phi4-mini", seed=9, num_hidden_layers=2, **narrow)


@pytest.fixture(scope="module")
def models(places: tuple[Path, Path]) -> tuple[Any, Any]:
    return load_model(places[0], "decoder").eval(), load_model(places[1], "decoder").eval()


def test_block_sums_are_those_of_brute_force() -> None:
    scores = RNG.random((7, 9))
    brute = [[scores[r : r + 3, c : c + 4].sum() for c in range(6)] for r in range(5)]
    np.testing.assert_allclose(block_sums(scores, 3, 4), brute, rtol=1e-12)
    assert block_sums(scores, 7, 9).shape == (1, 1)
    first, column, row = best_pair(scores, scores[:, ::-1], 3, 4, 5)
    totals = [max(b) + block_sums(scores[:, ::-1], 3, 5)[i].max() for i, b in enumerate(brute)]
    assert first == int(np.argmax(totals))
    assert column == int(np.argmax(brute[first]))
    assert row == int(block_sums(scores[:, ::-1], 3, 5)[first].argmax())


def test_sensitivity_is_per_example(models: tuple[Any, Any]) -> None:
    teacher = models[0]
    found = sensitivity(teacher, WORDS, 2)
    name = "1.mlp.down_proj.weight"
    weight, expected = layers_of(teacher).get_parameter(name), 0
    for i in range(2):
        batch = WORDS.batch(np.array([i]))
        (gradient,) = torch.autograd.grad(task_loss(teacher(input_ids=batch.ids).logits, batch), weight)
        expected = expected + (weight * gradient).abs()
    torch.testing.assert_close(found[name], expected)
    both = WORDS.batch(np.array([0, 1]))
    (gradient,) = torch.autograd.grad(task_loss(teacher(input_ids=both.ids).logits, both), weight)
    assert not torch.allclose(found[name], 2 * (weight * gradient).abs()), "signs cancel in a batch"


def test_layers_come_in_their_order() -> None:
    scores = {f"{i}.x.weight": torch.full((2, 2), v) for i, v in enumerate((3.0, 1.0, 2.0, 3.0))}
    assert chosen_layers(scores, 3) == (0, 2, 3)
    assert chosen_layers(scores, 1) == (0,)


def test_the_student_is_unchanged_at_step_0_and_after_merging(models: tuple[Any, Any]) -> None:
    teacher, student = models[0], copy.deepcopy(models[1])
    ids = WORDS.batch(np.arange(3)).ids
    before, shapes = student(input_ids=ids).logits, {n: p.shape for n, p in student.named_parameters()}
    transfer(teacher, student, sensitivity(teacher, WORDS, 2), 4)
    # W0 - BA + BA, each rounded in float32.
    torch.testing.assert_close(student(input_ids=ids).logits, before, rtol=1e-4, atol=1e-4)
    trained = [n for n, p in student.named_parameters() if p.requires_grad]
    assert len(trained) == 2 * 4 * 2
    assert all(n.endswith((".a", ".b")) for n in trained)
    merge(student)
    assert {n: p.shape for n, p in student.named_parameters()} == shapes
    torch.testing.assert_close(student(input_ids=ids).logits, before, rtol=1e-4, atol=1e-4)


def test_at_full_rank_the_lora_is_whole_heads_of_the_teacher(models: tuple[Any, Any]) -> None:
    teacher, student = models[0], copy.deepcopy(models[1])
    scores = sensitivity(teacher, WORDS, 2)
    transfer(teacher, student, scores, 96)
    source = layers_of(teacher)[chosen_layers(scores, 2)[0]].self_attn.qkv_proj.weight.detach()
    lora = layers_of(student)[0].self_attn.qkv_proj
    assert isinstance(lora, Lora)
    heads, piece = Heads.of(teacher.config), (lora.b @ lora.a).detach()
    candidates = [
        source[heads.rows(np.array([g]))[0]][:, c : c + 96]
        for g in range(heads.groups)
        for c in range(source.shape[1] - 95)
    ]
    # The product of the factors of an SVD in float32.
    assert min(float((piece - c).abs().max()) for c in candidates) < 1e-5


def test_a_distilled_student_has_only_its_own_tensors(places: tuple[Path, Path], tmp_path: Path) -> None:
    teacher, student = places
    options = TedOptions("kd", TrainOptions(steps=3), rate=1e-2, batch=2)
    run = Run(teacher, student, None, "decoder", WORDS, options, transfer=4)
    distill_checkpoint(run, tmp_path)
    before, after = load_model(student, "decoder").state_dict(), load_model(tmp_path, "decoder").state_dict()
    assert set(before) == set(after)
    changed = {n for n in before if not torch.equal(before[n], after[n])}
    assert changed == {n for n in before if n.endswith("proj.weight")}

"""AdaLoRA: the budget is met, and what PEFT trained is a plain LoRA of many ranks, exactly, on both runtimes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from converters.checkpoint import Checkpoint
from converters.decoder import Decoder
from converters.errors import UnsupportedError
from converters.models import describe
from edge.runtimes import open_runtime
from edge.runtimes.protocol import Adaptable
from quant.adapters.adalora import Schedule, adapt, compact, heal, orthogonality
from quant.adapters.linears import Pairs, linears
from quant.adapters.peft_files import write_adapter
from quant.adapters.training import Training, deploy, load_model, train
from quant.recipe import Recipe
from tests.adapters import merged_logits
from tests.converters.test_adapters import write

Tiny = Callable[..., Path]
IDS = [int(i) for i in np.random.default_rng(0).integers(3, 250, 40)]
STEPS, RANK = 30, 3


@pytest.fixture(scope="module")
def base(tiny: Tiny) -> Path:
    return tiny("phi4-mini")


@pytest.fixture(scope="module")
def decoder(base: Path) -> Decoder:
    with Checkpoint.open(base) as checkpoint:
        return describe(checkpoint)


@pytest.fixture(scope="module")
def windows() -> Any:
    return np.random.default_rng(0).integers(3, 600, (16, 32))


@pytest.fixture(scope="module")
def healed(base: Path, decoder: Decoder, windows: Any) -> tuple[Any, Pairs, list[float]]:
    """PEFT's model after training, and what is left of it."""
    recipe = Recipe.preset("int4")
    student, schedule = load_model(base), Schedule.of(RANK, STEPS)
    with Checkpoint.open(base) as checkpoint:
        deploy(student, checkpoint, decoder, lambda w, i, raw: recipe.decode(recipe.encode(w, raw, start=i)))
    training = Training(STEPS, rate=5e-3)
    adapted = adapt(student, linears(decoder), schedule, training)
    losses = train(
        adapted, load_model(base), windows, training, after_step=adapted.base_model.update_and_allocate
    )
    return adapted, compact(adapted, linears(decoder)), losses


def test_what_is_left_is_what_peft_computes(healed: tuple[Any, Pairs, list[float]], decoder: Decoder) -> None:
    """Scale, lambda and the dropped triplets: the update of every matrix, to float32 rounding."""
    adapted, pairs, _ = healed
    for linear in linears(decoder):
        layer = adapted.base_model.model.get_submodule(linear.module)
        expected = layer.get_delta_weight("default").detach().numpy()
        a, b = pairs.get(linear.module, (np.zeros((1, linear.shape[1])), np.zeros((linear.shape[0], 1))))
        np.testing.assert_allclose(b @ a, expected, atol=1e-6 * max(1, np.abs(expected).max()), rtol=1e-5)


def test_the_budget_is_met_and_shared_unevenly(
    healed: tuple[Any, Pairs, list[float]], decoder: Decoder
) -> None:
    _, pairs, losses = healed
    ranks = [len(a) for a, _ in pairs.values()]
    assert sum(ranks) == RANK * len(linears(decoder))
    assert len(set(ranks)) > 1
    assert np.mean(losses[-5:]) < np.mean(losses[:5])


def test_at_its_start_it_changes_nothing(base: Path, decoder: Decoder) -> None:
    adapted = adapt(load_model(base), linears(decoder), Schedule.of(RANK, STEPS), Training(STEPS))
    ids = torch.tensor([IDS])
    with torch.no_grad():
        assert torch.equal(adapted(ids).logits, load_model(base)(ids).logits)
    with pytest.raises(UnsupportedError, match="pruned every rank"):
        compact(adapted, linears(decoder))


def test_the_regularizer_makes_the_halves_more_orthogonal(base: Path, decoder: Decoder, windows: Any) -> None:
    """They do not begin so: normal with 0.02."""
    training = Training(STEPS, rate=5e-3)
    adapted = adapt(load_model(base), linears(decoder), Schedule.of(RANK, STEPS), training)
    before = orthogonality(adapted).item()
    train(adapted, load_model(base), windows, training, regularizer=lambda: 0.1 * orthogonality(adapted))
    assert orthogonality(adapted).item() < 0.9 * before


def test_too_few_steps_for_the_phases() -> None:
    with pytest.raises(UnsupportedError, match="phases"):
        Schedule.of(4, 9)


@pytest.mark.parametrize("room", ["onnx", "gguf"])
def test_runtimes_agree_with_the_merged_weights(
    base: Path, healed: tuple[Any, Pairs, list[float]], tmp_path: Path, room: str
) -> None:
    """A rank of its own for every matrix: PEFT merges it from the files, the runtimes add it."""
    write_adapter(tmp_path / "a", healed[1], base.name)
    path = write(room, base, {"a": tmp_path / "a"}, tmp_path / room, "f32")
    runtime = open_runtime(path, context_length=64, exact=True)
    assert isinstance(runtime, Adaptable)
    runtime.use_adapter("a")
    found = runtime.teacher_forced(IDS)
    runtime.close()
    expected = merged_logits(base, tmp_path / "a", IDS)
    # As tests/converters/test_adapters: two products instead of one merged weight, in the engine's order.
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)
    assert np.abs(expected - merged_logits(base, None, IDS)).max() > 1e-2


def test_two_runs_give_the_same_pairs(tiny: Tiny, base: Path, decoder: Decoder, windows: Any) -> None:
    found, teacher = linears(decoder), load_model(tiny("phi4-mini", seed=1))
    schedule, training = Schedule.of(1, 10), Training(10, rate=1e-2)
    runs = [heal(load_model(base), teacher, found, windows, schedule, training)[0] for _ in range(2)]
    assert runs[0].keys() == runs[1].keys()
    for module, halves in runs[0].items():
        for one, other in zip(halves, runs[1][module], strict=True):
            np.testing.assert_array_equal(one, other)

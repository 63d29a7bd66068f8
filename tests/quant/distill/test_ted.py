"""TED's identities: what is frozen stays, what is switched off is gone, a copy has nothing to learn."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, BertConfig, BertForSequenceClassification

from converters.checkpoint import Checkpoint
from converters.models import describe
from quant.distill.cut import Cut, kept_parameters, layer_map, plan_cut
from quant.distill.filters import Filters, FilterStage
from quant.distill.losses import hidden_loss, kl_loss
from quant.distill.models import Examples, forward, freeze, load_model
from quant.distill.order import TedOptions
from quant.distill.run import Run, distill_checkpoint
from quant.distill.students import cut_student
from quant.distill.ted import distill, stage_two_losses
from quant.distill.training import TrainOptions

Tiny = Callable[..., Path]
OPTIONS = TedOptions("ted", TrainOptions(steps=4, seed=1), batch=4, filter_steps=4, filters_per_step=2)
RNG = np.random.default_rng(0)
IDS = RNG.integers(0, 600, (12, 20))
MASK = np.arange(20) < RNG.integers(8, 21, (12, 1))
WORDS = Examples(IDS, MASK)
LABELLED = replace(WORDS, labels=RNG.integers(0, 3, 12))


@pytest.fixture(scope="module")
def decoder(tiny: Tiny) -> Path:
    return tiny("phi4-mini", num_hidden_layers=4)


def teacher_of(kind: str, decoder: Path) -> Any:
    if kind == "decoder":
        return load_model(decoder, "decoder")
    config = BertConfig(
        vocab_size=600, hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=48,
        max_position_embeddings=32, num_labels=3, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    torch.manual_seed(5)
    return BertForSequenceClassification(config)


def pair(kind: str, decoder: Path, tmp_path: Path, hidden: int | None = None) -> tuple[Any, Any, Examples]:
    teacher = teacher_of(kind, decoder)
    teacher.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    cut = plan_cut(config, kind, 2, hidden)
    return teacher, cut_student(teacher, kind, cut), WORDS if kind == "decoder" else LABELLED


def bits(model: torch.nn.Module) -> dict[str, bytes]:
    return {name: t.detach().numpy().tobytes() for name, t in model.state_dict().items()}


@pytest.mark.parametrize("kind", ["decoder", "encoder"])
def test_every_frozen_tensor_stays_bit_for_bit(kind: str, decoder: Path, tmp_path: Path) -> None:
    teacher, student, examples = pair(kind, decoder, tmp_path)
    before, begun, seen = bits(teacher), bits(student), {}

    def look(stage: str, told: Any) -> None:
        if told.step == told.steps:
            seen[stage] = bits(student)

    losses = distill(teacher, student, kind, examples, OPTIONS, report=look)
    assert list(seen) == ["teacher filters", "student filters", "student"]
    assert seen["student filters"] == begun, "stage I trains filters and their heads alone"
    assert bits(teacher) == before
    changed = [name for name, found in bits(student).items() if found != begun[name]]
    # All of them: of a Bert's key biases too, whose gradient is rounding alone.
    assert set(begun) - set(changed) <= {n for n in begun if n.endswith(("position_ids", "key.bias"))}
    assert set(losses) == {"task", "kl", "hidden"}


@pytest.mark.parametrize("kind", ["decoder", "encoder"])
def test_without_a_hidden_weight_it_is_kd_and_without_both_fine_tuning(
    kind: str, decoder: Path, tmp_path: Path
) -> None:
    # No clipping: the norm of more gradients, though the others are 0, is summed in another order.
    options = replace(OPTIONS, train=replace(OPTIONS.train, clip=0.0))

    def trained(method: Any, **weights: float) -> dict[str, bytes]:
        teacher, student, examples = pair(kind, decoder, tmp_path)
        distill(teacher, student, kind, examples, replace(options, method=method, **weights))
        return bits(student)

    kd = trained("kd")
    assert trained("ted", hidden=0.0) == kd
    assert trained("lwd", hidden=0.0) == kd
    ft = trained("ft")
    assert trained("kd", kl=0.0) == ft
    assert ft != kd
    assert trained("ted") != kd


@pytest.mark.parametrize("kind", ["decoder", "encoder"])
def test_a_copy_of_the_teacher_has_only_the_task_to_learn(kind: str, decoder: Path) -> None:
    teacher, student = teacher_of(kind, decoder), teacher_of(kind, decoder)
    student.load_state_dict(teacher.state_dict())
    freeze(teacher)
    filters = Filters(4, teacher.config.hidden_size, teacher.config.hidden_size, identity=False)
    batch = (WORDS if kind == "decoder" else LABELLED).batch(np.arange(6))
    answers = layer_map(4, 4)
    assert answers == (0, 1, 2, 3)
    with torch.no_grad():
        losses = stage_two_losses(batch, teacher, student.eval(), filters, filters, answers, kind, OPTIONS)
    assert float(losses["kl"]) == 0
    assert float(losses["hidden"]) == 0
    assert float(losses["task"]) > 0.1


def test_padding_has_no_say_in_the_hidden_loss() -> None:
    mask = torch.from_numpy(MASK)
    s, t = torch.randn(2, 12, 20, 8, generator=torch.Generator().manual_seed(0))
    for relative in (False, True):
        one = hidden_loss([s], [t], mask, relative=relative)
        s2, t2 = (x.masked_fill(~mask[:, :, None], 1e3) for x in (s, -t))
        assert hidden_loss([s2], [-t2], mask, relative=relative) == one
    assert float(hidden_loss([s], [t], mask)) == pytest.approx(float((s - t)[mask].square().mean()))
    far, grown = (
        hidden_loss([s], [t], mask, relative=True),
        hidden_loss([9 * s], [9 * t], mask, relative=True),
    )
    assert float(grown) == pytest.approx(float(far), rel=1e-5), "relative: the scale of the stream cancels"


def test_kl_is_the_definition() -> None:
    batch = LABELLED.batch(np.arange(6))
    s, t = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    p, q = torch.softmax(t / 2, -1), torch.softmax(s / 2, -1)
    # Computed in float32.
    assert float(kl_loss(s, t, batch)) == pytest.approx(float(4 * (p * (p / q).log()).sum() / 6), rel=1e-5)


def test_a_filter_that_is_the_identity_reads_the_last_layer_as_the_model_does(decoder: Path) -> None:
    teacher = load_model(decoder, "decoder")
    freeze(teacher)
    batch = WORDS.batch(np.arange(3))
    logits, hidden = forward(teacher, batch, (3,))
    width = teacher.config.hidden_size
    stage = FilterStage(Filters(1, width, width), "decoder", teacher)
    own = torch.nn.functional.cross_entropy(batch.predictions(logits), batch.targets())
    # The same products in another order of rows.
    assert stage.task_losses(hidden, batch, [0]).item() == pytest.approx(float(own), rel=1e-5)
    assert [n for n, _ in stage.named_parameters()] == ["filters.maps.0.weight", "filters.maps.0.bias"]


def test_maps_cover_the_depth() -> None:
    assert layer_map(6, 12) == (1, 3, 5, 7, 9, 11)  # TED's 12 -> 6: every second one
    assert layer_map(15, 30) == tuple(range(1, 30, 2))
    assert layer_map(2, 5) == (2, 4)
    config = {"num_hidden_layers": 30, "hidden_size": 576}
    assert plan_cut(config, "decoder", 15, None, "even").layers[::14] == (0, 29)
    assert plan_cut(config, "decoder", 15, None).layers == (*range(5), *range(20, 30))
    assert Cut(tuple(range(0, 12, 2))).answers(12) == layer_map(6, 12)
    # A layer answers for those that are left out behind it, and a copied one with none behind it for itself.
    assert Cut((0, 1, 4, 5)).answers(6) == (0, 3, 4, 5)


@pytest.mark.parametrize(("layers", "hidden"), [(2, None), (4, 96), (2, 96)])
def test_the_student_is_a_phi3_without_filters(
    layers: int, hidden: int | None, decoder: Path, tmp_path: Path
) -> None:
    config = json.loads((decoder / "config.json").read_text())
    cut = plan_cut(config, "decoder", layers, hidden)
    run = Run(decoder, None, cut, "decoder", WORDS, replace(OPTIONS, train=TrainOptions(steps=2)))
    distill_checkpoint(run, tmp_path / "student")
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        (tmp_path / "student" / name).write_bytes((decoder / name).read_bytes())
    with safe_open(tmp_path / "student" / "model.safetensors", "pt") as file:
        names = set(file.keys())
    assert not [n for n in names if "filter" in n]
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "student")
    assert len(model.model.layers) == layers
    with Checkpoint.open(decoder) as source, Checkpoint.open(tmp_path / "student") as checkpoint:
        described = describe(checkpoint)  # every key and every tensor is known to the converter
        shapes = {name: tuple(t.shape) for name, t in source.tensors.items()}
    assert described.parameters == kept_parameters(shapes, config, cut)
    assert described.hidden_size == (hidden or config["hidden_size"])


def test_a_cut_of_everything_is_the_teacher(decoder: Path) -> None:
    teacher = load_model(decoder, "decoder")
    c = teacher.config
    whole = {
        "hidden_size": c.hidden_size, "num_attention_heads": c.num_attention_heads, "head_dim": c.head_dim
        if hasattr(c, "head_dim") else c.hidden_size // c.num_attention_heads,
        "num_key_value_heads": c.num_key_value_heads, "intermediate_size": c.intermediate_size,
    }  # fmt: skip
    copy = cut_student(teacher, "decoder", Cut((0, 1, 2, 3), whole))
    assert bits(copy) == bits(teacher)

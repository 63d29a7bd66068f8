"""Narrower BERTs: whole heads, neurons and channels, and the same function where what goes is dead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from quant.distill.cut import Cut, kept_parameters, plan_cut
from quant.distill.models import Examples
from quant.distill.order import TedOptions
from quant.distill.run import Run, distill_checkpoint
from quant.distill.students import cut_student
from quant.distill.training import TrainOptions

RNG = np.random.default_rng(0)
EXAMPLES = Examples(
    RNG.integers(2, 60, (8, 12)), np.arange(12) < RNG.integers(6, 13, (8, 1)), RNG.integers(0, 3, 8)
)
SIZES = {
    "vocab_size": 60, "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 96,
    "max_position_embeddings": 32, "num_labels": 3,
}  # fmt: skip


def teacher_of(kind: str) -> Any:
    torch.manual_seed(5)
    if kind == "bert":
        return BertForSequenceClassification(BertConfig(**SIZES)).eval()
    return RobertaForSequenceClassification(RobertaConfig(**SIZES, pad_token_id=0)).eval()


def logits(model: Any) -> torch.Tensor:
    ids, mask = torch.from_numpy(EXAMPLES.ids), torch.from_numpy(EXAMPLES.mask).long()
    with torch.inference_mode():
        return model.eval()(input_ids=ids, attention_mask=mask).logits


@pytest.mark.parametrize("kind", ["bert", "roberta"])
@pytest.mark.parametrize("method", ["ted", "lwd"])
def test_a_narrower_student_is_a_smaller_checkpoint(kind: str, method: Any, tmp_path: Path) -> None:
    """Filters map to the teacher's width, so the hidden states of both compare; none is written."""
    teacher = teacher_of(kind)
    teacher.save_pretrained(tmp_path / "teacher")
    config = teacher.config.to_dict()
    cut = plan_cut(config, "encoder", 2, 32)
    assert cut.changes == {
        "num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64,
    }  # fmt: skip
    options = TedOptions(method, TrainOptions(steps=2), batch=4, filter_steps=1)
    run = Run(tmp_path / "teacher", None, cut, "encoder", EXAMPLES, options)
    (tmp_path / "student").mkdir()
    losses = distill_checkpoint(run, tmp_path / "student")
    assert losses["hidden"] > 0
    student = AutoModelForSequenceClassification.from_pretrained(tmp_path / "student")
    shapes = {name: tuple(t.shape) for name, t in teacher.state_dict().items()}
    assert sum(p.numel() for p in student.parameters()) == kept_parameters(shapes, config, cut)
    assert student.config.hidden_size // student.config.num_attention_heads == 16


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_a_cut_of_everything_is_the_teacher(kind: str) -> None:
    teacher = teacher_of(kind)
    whole = {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 96}
    copy = cut_student(teacher, "encoder", Cut((0, 1, 2, 3), whole))
    assert {n: t.tolist() for n, t in copy.state_dict().items()} == {
        n: t.tolist() for n, t in teacher.state_dict().items()
    }


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_dead_neurons_go_first_and_nobody_misses_them(kind: str) -> None:
    teacher = teacher_of(kind)
    dead = RNG.permutation(96)[:32]
    with torch.no_grad():
        for layer in teacher.base_model.encoder.layer:
            layer.output.dense.weight[:, dead] = 0.0
    cut = Cut((0, 1, 2, 3), {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 64})
    student = cut_student(teacher, "encoder", cut)
    # The same products, summed without the zeros among them.
    assert torch.allclose(logits(student), logits(teacher), atol=1e-6)


def test_the_strongest_heads_stay_whole() -> None:
    teacher = teacher_of("bert")
    attention = teacher.base_model.encoder.layer[0].attention
    with torch.no_grad():
        for head in (0, 2):
            attention.output.dense.weight[:, head * 16 : head * 16 + 16] *= 1e-3
    student = cut_student(teacher, "encoder", plan_cut(teacher.config.to_dict(), "encoder", 4, 32))
    kept = student.base_model.encoder.layer[0].attention.self.value.bias.shape
    rows = torch.cat([torch.arange(16, 32), torch.arange(48, 64)])
    energy = teacher.base_model.embeddings.word_embeddings.weight.double().square().sum(0)
    channels = energy.argsort(descending=True, stable=True)[:32].sort().values
    assert kept == (32,)
    own = student.base_model.encoder.layer[0].attention.self.value.weight
    assert torch.equal(own, attention.self.value.weight[rows][:, channels])


def test_a_new_head_is_the_seeds_and_is_trained(tmp_path: Path) -> None:
    """An encoder without classes, fine-tuned at its own size."""
    teacher_of("bert").base_model.save_pretrained(tmp_path / "bare")
    config = teacher_of("bert").config.to_dict()
    cut = plan_cut(config, "encoder", None, None, whole=True)
    weights = []
    for i, seed in enumerate((1, 1, 2)):
        options = TedOptions("ft", TrainOptions(steps=1, seed=seed), batch=4)
        run = Run(tmp_path / "bare", None, cut, "encoder", EXAMPLES, options, names=("a", "b", "c"))
        (tmp_path / str(i)).mkdir()
        distill_checkpoint(run, tmp_path / str(i))
        model = AutoModelForSequenceClassification.from_pretrained(tmp_path / str(i))
        assert model.config.id2label == {0: "a", 1: "b", 2: "c"}
        weights.append(model.classifier.weight.detach().numpy().tobytes())
    assert weights[0] == weights[1] != weights[2]

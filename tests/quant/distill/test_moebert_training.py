"""MoEBERT on a task that a tiny BERT can learn: what importance is good for, and what training gives back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from quant.distill.models import Examples, load_model
from quant.distill.moebert import MoebertOptions, distill_checkpoint, losses, tables_of
from quant.distill.moebert_importance import importance
from quant.distill.moebert_model import load_student, split_student
from quant.distill.moebert_split import Split
from quant.distill.training import Report, TrainOptions, sample
from tests.encoder_checkpoint import write_encoder

SPLIT = Split(4, 12, 8)


@pytest.fixture(scope="module")
def task() -> Examples:
    """Random words; the label is whether "good" (4) comes before "bad" (5), so that the layers have work to do."""
    random = np.random.default_rng(0)
    ids = random.integers(6, 12, (256, 10))
    labels = random.integers(0, 2, 256)
    for row, label in zip(ids, labels, strict=True):
        first, second = np.sort(random.choice(np.arange(1, 10), 2, replace=False))
        row[[first, second]] = (4, 5) if label else (5, 4)
    ids[:, 0] = 2
    return Examples(ids, np.ones_like(ids, bool), labels)


@pytest.fixture(scope="module")
def teacher(task: Examples, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = write_encoder(tmp_path_factory.mktemp("bert"), layers=2)
    model = load_model(directory, "encoder").train()
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    for step in range(220):
        batch = task.batch(sample(0, step, len(task.ids), 32))
        optimizer.zero_grad()
        model(input_ids=batch.ids, labels=batch.labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    model.save_pretrained(directory)
    return directory


@torch.no_grad()
def right(model: Any, task: Examples) -> float:
    batch = task.batch(np.arange(len(task.ids)))
    return (model.eval()(input_ids=batch.ids).logits.argmax(-1) == batch.labels).double().mean().item()


def test_important_neurons_are_the_ones_to_keep(task: Examples, teacher: Path) -> None:
    """The hidden states of the student before any training: nearest to the teacher's with the important neurons
    shared, farthest with the least important ones."""
    dense = load_model(teacher, "encoder").eval()
    assert right(dense, task) > 0.9
    scores = importance(dense, "encoder", task, batch=32)
    options = MoebertOptions(SPLIT, TrainOptions(1))
    batch, found = task.batch(np.arange(64)), {}
    for name, order in {"important": scores, "least": -scores}.items():
        student = load_model(teacher, "encoder").eval()
        split_student(student, "encoder", SPLIT, order, tables_of(student, task, options))
        with torch.no_grad():
            terms = losses(batch, dense, student.eval(), "encoder", 1.0)
        found[name] = {key: float(term) for key, term in terms.items()}
    assert found["important"]["hidden"] < found["least"]["hidden"]
    assert found["important"]["kl"] < found["least"]["kl"]


def test_training_gives_the_task_back(task: Examples, teacher: Path, tmp_path: Path) -> None:
    """And shared neurons, the same in every expert at first, have parted; tables have not changed."""
    seen: list[Report] = []
    options = MoebertOptions(SPLIT, TrainOptions(120), rate=2e-3, batch=32)
    distill_checkpoint(teacher, "encoder", task, options, tmp_path, report=seen.append)
    student = load_student(tmp_path)
    assert right(student, task) > 0.9
    assert np.mean([r.loss for r in seen[-10:]]) < 0.7 * np.mean([r.loss for r in seen[:10]])
    experts = student.bert.encoder.layer[0].output.experts
    heads = [e.intermediate.dense.weight[: SPLIT.shared] for e in experts]
    assert all(0 < (head - heads[0]).abs().max() < 1 for head in heads[1:])
    assert json.loads((tmp_path / "config.json").read_text())["shared_neurons"] == 8
    drawn = tables_of(load_model(teacher, "encoder"), task, options)
    kept = [layer.output.table.numpy() for layer in student.bert.encoder.layer]
    np.testing.assert_array_equal(np.stack(kept), drawn)

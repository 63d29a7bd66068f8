"""MoEBERT (arXiv 2204.07675): a model's MLPs become experts, and the model learns to be itself again.

    L = CE + lambda (L_trm + L_pred)

L_trm sums the mean squared differences of all hidden states, embeddings included; L_pred is half of the KL divergences
of student and teacher both ways. Teacher and student's beginning are one model.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from converters.errors import UnsupportedError
from quant.distill import training as loop
from quant.distill.cut import Kind
from quant.distill.losses import hidden_loss, task_loss
from quant.distill.models import Batch, Examples, forward, freeze, layers_of, load_model
from quant.distill.moebert_importance import importance
from quant.distill.moebert_model import split_student, write_student
from quant.distill.moebert_split import Routing, Split, routing_tables
from quant.distill.training import Losses, Report, TrainOptions, sample


@dataclass(frozen=True)
class MoebertOptions:
    """`weight`: the paper's lambda. `ranked`: examples that importance is summed over, evenly spaced (0: all)."""

    split: Split
    train: TrainOptions
    rate: float = 2e-5
    batch: int = 8
    weight: float = 1.0
    routing: Routing = "hash"
    ranked: int = 0


def distill_checkpoint(
    teacher_directory: Path,
    kind: Kind,
    examples: Examples,
    options: MoebertOptions,
    output: Path,
    *,
    state: Path | None = None,
    run: str = "",
    report: Callable[[Report], None] | None = None,
    device: str = "cpu",
    ranked: Callable[[int], None] = lambda _: None,
) -> dict[str, float]:
    """Split, train, and write config.json and safetensors of the student into `output`, in the type of the teacher's.

    Returns the losses of the last step; raises, and goes on from `state`, as `quant.distill.training.train`, and
    UnsupportedError where `device` is not there. `ranked` is told how many more examples have had their say.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UnsupportedError("this machine has no GPU that torch can use", hint="try: --device cpu")
    teacher, student = (load_model(teacher_directory, kind) for _ in range(2))
    if state and state.exists():
        # Every expert's weights and every table come from there.
        scores = np.zeros((len(layers_of(teacher)), int(teacher.config.intermediate_size)))
    else:
        most, size = options.ranked, options.batch
        scores = importance(teacher, kind, examples, batch=size, most=most, device=device, advance=ranked)
    split_student(student, kind, options.split, scores, tables_of(student, examples, options))
    losses = train(
        teacher, student, kind, examples, options, state=state, run=run, report=report, device=device
    )
    config = json.loads((teacher_directory / "config.json").read_text(encoding="utf-8"))
    write_student(student, kind, options.split, config, output)
    return losses


def tables_of(model: Any, examples: Examples, options: MoebertOptions) -> Any:
    """The routing table of every layer, int64 [layers, vocabulary]."""
    ids = examples.ids * examples.mask - (~examples.mask).astype(examples.ids.dtype)
    layers, seed = len(layers_of(model)), options.train.seed
    return routing_tables(options.routing, ids, model.config.vocab_size, options.split.experts, layers, seed)


def train(
    teacher: Any,
    student: Any,
    kind: Kind,
    examples: Examples,
    options: MoebertOptions,
    *,
    state: Path | None = None,
    run: str = "",
    report: Callable[[Report], None] | None = None,
    device: str = "cpu",
) -> dict[str, float]:
    """Train every weight of `student` (`split_student`); `teacher` is frozen, and without dropout."""
    freeze(teacher.to(device))
    student.to(device).requires_grad_(True)
    seed = options.train.seed

    def batch(step: int) -> Batch:
        return examples.batch(sample(seed, step, len(examples.ids), options.batch), device)

    return loop.train(
        student,
        torch.optim.AdamW(student.parameters(), lr=options.rate, weight_decay=0.0, fused=True),
        batch,
        lambda item: losses(item, teacher, student, kind, options.weight),
        options.train,
        state=state,
        run=run,
        report=report,
    )


def losses(batch: Batch, teacher: Any, student: Any, kind: Kind, weight: float) -> Losses:
    """The terms of L, weighted.

    A decoder's hidden states are compared relative to the teacher's mean square at each position (`hidden_loss`).
    """
    logits, own = _states(student, batch)
    with torch.no_grad():
        wanted, theirs = _states(teacher, batch)
    terms = {"task": task_loss(logits, batch)}
    terms["hidden"] = weight * hidden_sum(own, theirs, batch.mask, relative=kind == "decoder")
    terms["kl"] = weight * symmetric_kl(batch.predictions(logits), batch.predictions(wanted))
    return terms


def hidden_sum(
    own: list[torch.Tensor], theirs: list[torch.Tensor], mask: torch.Tensor, *, relative: bool = False
) -> torch.Tensor:
    """L_trm: the sum over embeddings and layers of the mean squared difference, at the positions that `mask` keeps.

    (Padding has a say in the authors' code.)
    """
    return len(own) * hidden_loss(own, theirs, mask, relative=relative)


def symmetric_kl(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """L_pred: (KL(p || q) + KL(q || p)) / 2 of logits [predictions, classes], the mean over predictions."""
    p, q = (functional.log_softmax(z.float(), -1) for z in (one, other))
    both = [functional.kl_div(a, b, reduction="batchmean", log_target=True) for a, b in ((p, q), (q, p))]
    return (both[0] + both[1]) / 2


def _states(model: Any, batch: Batch) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Logits, and the hidden states [batch, length, width] of the embeddings and of every layer."""
    found: list[torch.Tensor] = []
    base = model.base_model
    embeddings = getattr(base, "embeddings", None) or base.get_input_embeddings()
    hook = embeddings.register_forward_hook(lambda module, inputs, output: found.append(output))
    try:
        logits, layers = forward(model, batch, range(len(layers_of(model))))
    finally:
        hook.remove()
    return logits, [*found, *layers]

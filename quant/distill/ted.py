"""TED: task-aware layer-wise distillation (arXiv 2210.01351), and the baselines it is held against.

Stage I trains a filter behind each student layer and behind the teacher layer it answers to, both backbones frozen.
Stage II trains student and student filters on task + a1 KL + a2 MSE of the filtered hidden states. One switch:

- ft: task alone. kd: task + a1 KL. lwd: kd + a2 MSE of the teacher's raw hidden states and the student's behind
  fresh linear maps; no stage I. ted: all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from quant.distill.cut import Kind, layer_map
from quant.distill.filters import Filters
from quant.distill.losses import hidden_loss, kl_loss, task_loss
from quant.distill.models import Batch, Examples, forward, freeze, layers_of
from quant.distill.optimizers.groups import Optimizing, make_optimizer
from quant.distill.order import Item, Order, TedOptions, Told, counts, seeded
from quant.distill.stage_one import train_filters
from quant.distill.training import Losses, train


def distill(
    teacher: Any,
    student: Any,
    kind: Kind,
    examples: Examples,
    options: TedOptions,
    *,
    state: Path | None = None,
    run: str = "",
    report: Told | None = None,
    device: str = "cpu",
    answers: Sequence[int] | None = None,
) -> dict[str, float]:
    """Train what of `student` requires gradients, in place; returns the losses of the last step. `teacher` is frozen
    and left bit for bit.

    answers: for each student layer the teacher layer whose states it learns, None for evenly spaced ones.
    `state`: directory for what an interrupted run needs, each stage a file. Raises what `train` raises.
    """
    freeze(teacher.to(device))
    student.to(device)
    trained = {p: p.requires_grad for p in student.parameters()}
    said = report or (lambda stage, told: None)
    order = Order(examples, options, device)
    depth = len(layers_of(student))
    answers = answers or layer_map(depth, len(layers_of(teacher)))
    with_hidden = options.method in ("lwd", "ted")
    theirs = own = None
    if options.method == "ted":
        out = teacher.config.hidden_size
        theirs, own = (
            train_filters(name, model, kept, out, teacher, kind, order, state=state, run=run, report=said)
            for name, model, kept in (
                ("teacher filters", teacher, answers),
                ("student filters", student, tuple(range(depth))),
            )
        )
    elif with_hidden:
        with seeded(options.train.seed):
            own = Filters(depth, student.config.hidden_size, teacher.config.hidden_size, identity=False)
        own.to(device)
    for parameter, wanted in trained.items():
        parameter.requires_grad_(wanted)
    parts = torch.nn.ModuleDict({"student": student} | ({"filters": own} if own is not None else {}))

    def losses(item: Item) -> Losses:
        return stage_two_losses(item[0], teacher, student, theirs, own, answers, kind, options)

    return train(
        parts,
        make_optimizer(parts, student, Optimizing(options.rate, options.optimizer, options.base_width)),
        order,
        losses,
        options.train,
        state=state and state / "student.pt",
        run=run,
        report=lambda told: said("student", told),
        counts=counts,
    )


def stage_two_losses(
    batch: Batch,
    teacher: Any,
    student: Any,
    theirs: Filters | None,
    own: Filters | None,
    answers: Sequence[int],
    kind: Kind,
    options: TedOptions,
) -> Losses:
    """Task, KL and hidden terms, weighted; those that the method does not have are absent.

    theirs: the teacher's filters, None for its raw hidden states. own: the student's, None for no hidden term.
    """
    kept = range(len(answers)) if own is not None else ()
    logits, hidden = forward(student, batch, kept)
    terms = {"task": task_loss(logits, batch)}
    if options.method == "ft":
        return terms
    with torch.no_grad():
        wanted, goals = forward(teacher, batch, answers if own is not None else ())
        goals = theirs(goals) if theirs is not None else goals
    terms["kl"] = options.kl * kl_loss(logits, wanted, batch, options.temperature)
    if own is not None:
        relative = kind == "decoder"
        terms["hidden"] = options.hidden * hidden_loss(own(hidden), goals, batch.mask, relative=relative)
    return terms

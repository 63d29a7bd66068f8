"""TED: task-aware layer-wise distillation (arXiv 2210.01351), and the baselines it is held against.

Stage I trains a filter behind each student layer and behind the teacher layer it answers to, both backbones frozen.
Stage II trains student and student filters on task + a1 KL + a2 MSE of the filtered hidden states. One switch:

- ft: task alone. kd: task + a1 KL. lwd: kd + a2 MSE of the teacher's raw hidden states and the student's behind
  fresh linear maps; no stage I. ted: all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from quant.distill.cut import Kind, layer_map
from quant.distill.filters import Filters, FilterStage
from quant.distill.losses import hidden_loss, kl_loss, task_loss
from quant.distill.models import Batch, Examples, forward, freeze, layers_of
from quant.distill.optimizers.groups import Name, Optimizing, make_optimizer
from quant.distill.parallel import share
from quant.distill.training import Losses, Report, TrainOptions, sample, train

Method = Literal["ft", "kd", "lwd", "ted"]
Told = Callable[[str, Report], None]


@dataclass(frozen=True)
class TedOptions:
    """`kl` and `hidden` are the paper's alpha 1 and alpha 2. `filter_steps`, `filter_rate`: stage I.

    filters_per_step: how many filters a step of stage I trains, drawn anew (0: all, as in the paper); fewer cost less
    where each needs a pass through a vocabulary's matrix, and the loss is the same on average.
    optimizer, base_width: of stage II, as Optimizing's.
    """

    method: Method
    train: TrainOptions
    rate: float = 5e-4
    batch: int = 8
    kl: float = 1.0
    hidden: float = 1.0
    temperature: float = 2.0
    filter_steps: int = 100
    filter_rate: float = 1e-3
    filters_per_step: int = 0
    optimizer: Name = "adamw"
    base_width: int = 0


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
            _stage_one(name, model, kept, out, teacher, kind, order, state=state, run=run, report=said)
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


Item = tuple[Batch, int]


def counts(item: Item) -> dict[str, float]:
    """Of how many predictions, or positions, each loss of a batch is the mean."""
    predictions, positions = float(len(item[0].targets())), float(item[0].mask.sum())
    return dict.fromkeys(("task", "kl", "filters", "consistency"), predictions) | {"hidden": positions}


class Order:
    """Step -> (batch, step): this process's part of the examples, in an order that the seed alone decides."""

    def __init__(self, examples: Examples, options: TedOptions, device: str) -> None:
        self.examples, self.options, self.device = examples, options, device

    def __call__(self, step: int) -> Item:
        seed, size = self.options.train.seed, self.options.batch
        indices = share(sample(seed, step, len(self.examples.ids), size))
        return self.examples.batch(indices, self.device), step

    def filters(self, step: int, count: int) -> list[int]:
        """Which of `count` filters a step of stage I trains."""
        wanted = min(self.options.filters_per_step or count, count)
        return sorted(
            np.random.default_rng([self.options.train.seed, 1, step]).permutation(count)[:wanted].tolist()
        )


def _stage_one(
    name: str,
    model: Any,
    kept: Sequence[int],
    out: int,
    teacher: Any,
    kind: Kind,
    order: Order,
    *,
    state: Path | None,
    run: str,
    report: Told,
) -> Filters:
    """Filters behind the layers `kept` of `model`, trained; nothing else is changed."""
    options = order.options
    with seeded(options.train.seed):
        stage = FilterStage(Filters(len(kept), model.config.hidden_size, out), kind, teacher)
    stage.to(order.device)
    freeze(model)

    def losses(item: Item) -> Losses:
        batch, step = item
        with torch.no_grad():
            _, hidden = forward(model, batch, kept)
        return {"filters": stage.task_losses(hidden, batch, order.filters(step, len(kept)))}

    train(
        stage,
        torch.optim.AdamW(stage.parameters(), lr=options.filter_rate, weight_decay=0.0, fused=True),
        order,
        losses,
        replace(options.train, steps=options.filter_steps, warm_up=0),
        state=state and state / f"{name.replace(' ', '-')}.pt",
        run=run,
        report=lambda told: report(name, told),
        counts=counts,
    )
    freeze(stage.filters) if model is teacher else stage.filters.requires_grad_(True)
    return stage.filters


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """New weights are a function of the seed, and leave torch's generator as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield

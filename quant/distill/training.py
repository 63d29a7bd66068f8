"""The training loop of every method: named losses, exact resume, a stop that loses nothing.

Everything that a step does is a function of the weights, the optimizer's state, torch's generator and the step's
number, and all of these are in the saved state: a run that was interrupted ends with the same bits as one that was
not, on one machine with one number of threads. Several processes (`parallel.py`) share each batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from converters.errors import TrainingError
from quant.distill.interrupts import deferred_interrupt
from quant.distill.launch import check_alone
from quant.distill.parallel import join
from quant.distill.state import Stateful, load_state, save_state

Batch = TypeVar("Batch")
Losses = Mapping[str, torch.Tensor]
"""Scalars by name, already weighted: their sum is minimised."""


@dataclass(frozen=True)
class TrainOptions:
    """`steps` in all; the optimizer's learning rates rise for `warm_up` steps and then fall linearly to 0.

    clip: largest L2 norm of the gradient of all parameters (0: any). save_every: steps between saved states.
    bf16: matrix products in bfloat16 by autocast; weights, optimizer and losses stay in float32.
    """

    steps: int
    seed: int = 0
    warm_up: int = 0
    clip: float = 1.0
    save_every: int = 100
    bf16: bool = False


@dataclass(frozen=True)
class Report:
    """After a step: how many are done, the losses by name and their sum, steps a second, seconds left."""

    step: int
    steps: int
    loss: float
    losses: Mapping[str, float]
    speed: float
    left: float


def train(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Callable[[int], Batch],
    losses: Callable[[Batch], Losses],
    options: TrainOptions,
    *,
    state: Path | None = None,
    run: str = "",
    report: Callable[[Report], None] | None = None,
    after_step: Callable[[int], None] | None = None,
    also: Mapping[str, Stateful] | None = None,
    counts: Callable[[Batch], Mapping[str, float]] | None = None,
) -> dict[str, float]:
    """Train `model`, in place and from where `state` is, to `options.steps`; returns the last step's losses by name.

    model: what is trained and saved, in training mode; a frozen teacher is not part of it. `batch(step)` must be a
    function of the step's number alone (`sample` helps), `losses(batch)` may draw from torch's generator.
    `after_step(steps done)` runs after the optimizer, with the gradients still there (importance scores, rank
    budgets); what it remembers goes into `also`. `run` names settings and inputs, so that no other run's state is
    taken for this one's. Ctrl-C ends the step, saves and raises KeyboardInterrupt; a second one ends at once.

    Several launched processes train together where `counts` is given: `batch` then gives this process's part (`share`
    of parallel.py), and `counts(batch)` of how many items each of the losses is the mean. Losses, `report` and a stop
    are those of all; the first process alone saves. Without `counts` they raise UnsupportedError.
    Raises TrainingError, and what `load_state` and `Team.begin` raise.
    """
    if counts is None:
        check_alone("this training")
    last = _Last()
    parts: dict[str, Stateful] = {"model": model, "optimizer": optimizer, "last": last, **(also or {})}
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
    team = join(next(model.parameters()).device)
    torch.manual_seed(team.seed(options.seed))
    # A fresh run gets the seed's generator; a resumed one the generator of its last step.
    first = load_state(state, parts, run=run, rank=team.here.rank) if state else 0
    team.begin(model, first)
    model.train()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    began, saved = time.monotonic(), first
    with deferred_interrupt(alone=team.here.size == 1) as interrupted:
        for step in range(first, options.steps):
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * rate(step, options)
            item = batch(step)
            with _autocast(model, options.bf16):
                terms = losses(item)
            if counts is not None and team.here.size > 1:
                found = counts(item)
                share = team.shares({name: found[name] for name in terms})
                terms = {name: term.float() * share[name] for name, term in terms.items()}
            total = torch.stack([t.float() for t in terms.values()]).sum()
            values = team.total([float(term.detach()) for term in terms.values()])
            last.losses = dict(zip(terms, values, strict=True))
            _check(step, last.losses, state, saved)
            optimizer.zero_grad(set_to_none=True)
            total.backward()  # type: ignore[no-untyped-call]
            team.add_gradients(parameters)
            norm = torch.nn.utils.clip_grad_norm_(parameters, options.clip or math.inf)
            _check(step, {"gradient norm": float(norm)}, state, saved)
            optimizer.step()
            if after_step:
                after_step(step + 1)
            done = step + 1
            if report:
                report(_report(done, options.steps, last.losses, done - first, time.monotonic() - began))
            stop = team.any(interrupted())
            if state and (done % options.save_every == 0 or done == options.steps or stop):
                _check(step, {"weights": _total(parameters)}, state, saved)
                generators = team.generators()
                if team.here.rank == 0:
                    save_state(state, parts, step=done, run=run, generators=generators)
                saved = done
            if stop:
                team.wait()  # the first process to end makes a launcher end the others: not while one still saves
                raise KeyboardInterrupt
    return last.losses


def rate(step: int, options: TrainOptions) -> float:
    """The learning rate of step 0, 1, .. as a share of its peak: linear warm-up, then linear decay to 0 at the end."""
    if step < options.warm_up:
        return (step + 1) / options.warm_up
    return (options.steps - step) / max(1, options.steps - options.warm_up)


def sample(seed: int, step: int, count: int, size: int) -> NDArray[np.int64]:
    """Indices int64 [size] below `count` for a step: each epoch a new order, every example once in it.

    A function of its arguments alone, so that a resumed run sees what the uninterrupted one would.
    """
    places = np.arange(step * size, (step + 1) * size)
    orders = {
        epoch: np.random.default_rng([seed, epoch]).permutation(count) for epoch in {*(places // count)}
    }
    return np.array([orders[place // count][place % count] for place in places], np.int64)


def has_bf16(device: str) -> bool:
    """Whether bfloat16 products run in hardware there: elsewhere they are right, and slower than float32."""
    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    found: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(found.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


class _Last:
    """The losses of the last step, for a run that has nothing left to do."""

    def __init__(self) -> None:
        self.losses: dict[str, float] = {}

    def state_dict(self) -> dict[str, Any]:
        return self.losses

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        self.losses = dict(state)


def _report(done: int, steps: int, named: Mapping[str, float], here: int, seconds: float) -> Report:
    speed = here / max(seconds, 1e-9)
    return Report(done, steps, sum(named.values()), named, speed, (steps - done) / speed)


def _check(step: int, values: Mapping[str, float], state: Path | None, saved: int) -> None:
    bad = {name: value for name, value in values.items() if not math.isfinite(value)}
    if not bad:
        return
    told = ", ".join(f"{name} {value}" for name, value in bad.items())
    kept = f"; the state after step {saved} is kept in {state}" if state and saved else ""
    raise TrainingError(
        f"training diverged at step {step + 1}: {told}{kept}",
        hint="try a third of the learning rate, or a longer warm-up",
    )


def _total(parameters: list[torch.Tensor]) -> float:
    """Finite when every weight is."""
    return float(torch.stack([p.detach().double().abs().sum() for p in parameters]).sum())


@contextmanager
def _autocast(model: torch.nn.Module, bf16: bool) -> Iterator[None]:
    kind = next(model.parameters()).device.type
    with torch.autocast(kind, dtype=torch.bfloat16, enabled=bf16):
        yield

"""Train an adapter against a teacher, beside weights as the device has them: what the rounding lost is what it learns.

The loss is KL(teacher || student) a token, so any text will do, and no answers are needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional
from transformers import AutoModelForCausalLM

from converters.checkpoint import Checkpoint
from converters.decoder import Decoder
from quant.adapters.linears import RoundTrip
from quant.distill import training as loop
from quant.distill.quiet import quiet
from quant.distill.state import Stateful
from quant.distill.training import Report, TrainOptions, sample


@dataclass(frozen=True)
class Training:
    """rate: AdamW's after a warm-up of a tenth of the steps; it falls linearly to 0. batch: windows a step.

    state: the file that an interrupted run goes on from, written every `save_every` steps (None: no run is kept).
    run: says which run that is.
    """

    steps: int
    rate: float = 2e-4
    batch: int = 2
    seed: int = 0
    state: Path | None = None
    run: str = ""
    save_every: int = 100


def load_model(directory: Path) -> Any:
    """transformers' model of a checkpoint, float32, frozen, without dropout."""
    quiet()
    model: Any = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, local_files_only=True)
    return model.requires_grad_(requires_grad=False).eval()


@torch.no_grad()
def deploy(model: Any, checkpoint: Checkpoint, decoder: Decoder, round_trip: RoundTrip) -> None:
    """Give `model` the values that the device computes with, of every weight of its checkpoint."""
    for weight in decoder.weights():
        values = round_trip(weight, 0, checkpoint.weight_rows(weight, 0, weight.rows))
        at = 0
        for part in weight.parts:
            rows = torch.from_numpy(values[at : at + part.stop - part.start])
            model.get_parameter(part.tensor)[part.start : part.stop] = rows
            at += part.stop - part.start


def divergence(teacher: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
    """Mean KL(teacher || student) of logits [..., vocab], in nats a token."""
    target, found = (functional.log_softmax(x, dim=-1).flatten(0, -2) for x in (teacher, student))
    return functional.kl_div(found, target, reduction="batchmean", log_target=True)


def train(
    student: Any,
    teacher: Any,
    windows: NDArray[np.int64],
    training: Training,
    *,
    regularizer: Callable[[], torch.Tensor] | None = None,
    after_step: Callable[[int], None] | None = None,
    also: Mapping[str, Stateful] | None = None,
    advance: Callable[[int], None] | None = None,
) -> list[float]:
    """Train what of `student` has gradients; windows: token ids [n, length]. Returns the divergence of each step.

    `after_step` and `also` as `quant.distill.training.train` takes them, whose errors these are. `advance` is told 1 a
    step; the steps that an earlier, interrupted run did are told with the first.
    """
    parameters = [p for p in student.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=training.rate, weight_decay=0.0)

    def losses(batch: torch.Tensor) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            expected = teacher(input_ids=batch, use_cache=False).logits
        kl = divergence(expected, student(input_ids=batch, use_cache=False).logits)
        return {"kl": kl} if regularizer is None else {"kl": kl, "regularizer": regularizer()}

    told, seen = _Told(), 0

    def report(step: Report) -> None:
        nonlocal seen
        told.losses.append(step.losses["kl"])
        if advance is not None:
            advance(step.step - seen)
        seen = step.step

    options = TrainOptions(
        training.steps, seed=training.seed, warm_up=training.steps // 10, save_every=training.save_every
    )
    loop.train(
        torch.nn.ParameterList(parameters),  # the frozen rest is in no state, and stays without dropout
        optimizer,
        lambda step: torch.from_numpy(windows[sample(training.seed, step, len(windows), training.batch)]),
        losses,
        options,
        state=training.state,
        run=training.run,
        report=report,
        after_step=after_step,
        also={"told": told, **(also or {})},
    )
    return told.losses


class _Told:
    """The losses so far: a run that goes on tells them all."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def state_dict(self) -> dict[str, Any]:
        return {"losses": self.losses}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        self.losses = list(state["losses"])

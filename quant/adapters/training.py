"""Train an adapter against a teacher, beside weights as the device has them: what the rounding lost is what it learns.

The loss is KL(teacher || student) a token, so any text will do, and no answers are needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional
from transformers import AutoModelForCausalLM

from converters.checkpoint import Checkpoint
from converters.decoder import Decoder
from converters.errors import UnsupportedError
from quant.adapters.linears import RoundTrip


@dataclass(frozen=True)
class Training:
    """rate: AdamW's after a warm-up of a tenth of the steps; it falls linearly to 0. batch: windows a step."""

    steps: int
    rate: float = 2e-4
    batch: int = 2
    seed: int = 0
    clip: float = 1.0

    def to_data(self) -> dict[str, Any]:
        return asdict(self)

    def rate_at(self, step: int) -> float:
        """Of step 0 .. steps - 1."""
        warm = max(1, self.steps // 10)
        return self.rate * min((step + 1) / warm, (self.steps - step) / max(1, self.steps - warm))


def load_model(directory: Path) -> Any:
    """transformers' model of a checkpoint, float32, frozen, without dropout."""
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, local_files_only=True)
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
    advance: Callable[[int], None] | None = None,
) -> list[float]:
    """Train what of `student` has gradients; windows: token ids [n, length]. Returns the loss of each step.

    after_step: told 1 .. steps after the optimizer's step, with the gradients still there. UnsupportedError when a
    loss is not finite.
    """
    order = np.random.default_rng(training.seed)
    parameters = [p for p in student.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=training.rate, weight_decay=0.0)
    losses: list[float] = []
    for step in range(training.steps):
        for group in optimizer.param_groups:
            group["lr"] = training.rate_at(step)
        batch = torch.from_numpy(windows[order.integers(len(windows), size=training.batch)])
        with torch.no_grad():
            expected = teacher(input_ids=batch, use_cache=False).logits
        loss = divergence(expected, student(input_ids=batch, use_cache=False).logits)
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise UnsupportedError(
                f"the loss is {losses[-1]} at step {step + 1} of {training.steps}; nothing is written",
                hint=f"a smaller --rate than {training.rate:g}",
            )
        optimizer.zero_grad()
        total = loss if regularizer is None else loss + regularizer()
        total.backward()
        torch.nn.utils.clip_grad_norm_(parameters, training.clip)
        optimizer.step()
        if after_step is not None:
            after_step(step + 1)
        if advance is not None:
            advance(1)
    return losses

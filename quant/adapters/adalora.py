"""AdaLoRA (arXiv 2303.10512) with PEFT: a budget of ranks that training shares out among the matrices.

W + P diag(lambda) Q, where training zeroes the lambdas that matter least until the budget is met. PEFT never shrinks
the matrices and scales by alpha / (r_init + 1e-5) to the end; `compact` drops the triplets whose lambda is 0 and folds
scale and lambda into b, which leaves the update as it is, as a plain LoRA with a rank of its own for every matrix.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft import AdaLoraConfig, get_peft_model

from converters.errors import UnsupportedError
from quant.adapters.linears import Linear, Pairs
from quant.adapters.training import Training, train

FEWEST_STEPS = 10
ORTHOGONAL = 0.1
"""The paper's gamma; PEFT's default is 0.5."""
_IMPORTANCE = ("ipt", "exp_avg_ipt", "exp_avg_unc")


@dataclass(frozen=True)
class Schedule:
    """The budget falls from `start` to `rank` a matrix between the steps `begin` and steps - `end`, as a cubic."""

    rank: int
    start: int
    begin: int
    end: int
    every: int

    @classmethod
    def of(cls, rank: int, steps: int) -> Schedule:
        """The paper's: one and a half times the budget at first, a tenth of the steps before and 3 in 10 after."""
        if steps < FEWEST_STEPS:
            raise UnsupportedError(
                f"AdaLoRA shares ranks out in phases, which {steps} steps are too few for",
                hint=f"--steps {FEWEST_STEPS} or more",
            )
        return cls(rank, math.ceil(1.5 * rank), steps // 10, 3 * steps // 10, max(1, steps // 100))


def heal(
    model: Any,
    teacher: Any,
    linears: list[Linear],
    windows: NDArray[np.int64],
    schedule: Schedule,
    training: Training,
    advance: Callable[[int], None] | None = None,
) -> tuple[Pairs, list[float]]:
    """Train beside the weights of `model` against `teacher`; the pairs that are left, and the losses."""
    adapted = adapt(model, linears, schedule, training)
    budget = Budget(adapted)
    losses = train(
        adapted, teacher, windows, training,
        regularizer=lambda: ORTHOGONAL * orthogonality(adapted),
        after_step=budget.after_step,
        also={"budget": budget},
        advance=advance,
    )  # fmt: skip
    return compact(adapted, linears), losses


class Budget:
    """PEFT's sharing out of the ranks, as a part of a run's state: the importance of every value, which PEFT saves with
    no model, and the ranks that were chosen."""

    def __init__(self, adapted: Any) -> None:
        self._model = adapted.base_model
        self._config = adapted.peft_config["default"]

    def after_step(self, step: int) -> None:
        """step: how many are done."""
        self._model.update_and_allocate(step)

    def state_dict(self) -> dict[str, Any]:
        own = {name: dict(getattr(self._model.rankallocator, name)) for name in _IMPORTANCE}
        return {**own, "ranks": self._config.rank_pattern}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        for name in _IMPORTANCE:
            setattr(self._model.rankallocator, name, dict(state[name]))
        self._config.rank_pattern = state["ranks"]


def adapt(model: Any, linears: list[Linear], schedule: Schedule, training: Training) -> Any:
    """PEFT's model, ready to train: the update is 0."""
    torch.manual_seed(training.seed)
    config = AdaLoraConfig(
        target_modules=[linear.module for linear in linears],
        target_r=schedule.rank,
        init_r=schedule.start,
        tinit=schedule.begin,
        tfinal=schedule.end,
        deltaT=schedule.every,
        total_step=training.steps,
        lora_alpha=schedule.start,
        orth_reg_weight=ORTHOGONAL,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return get_peft_model(model, config)


def orthogonality(adapted: Any) -> torch.Tensor:
    """Mean over the matrices of ||P^T P - I||_F and ||Q Q^T - I||_F: the official code's, the paper squares them."""
    norms = []
    for name, half in adapted.named_parameters():
        if "lora_A" in name or "lora_B" in name:
            gram = half @ half.T if "lora_A" in name else half.T @ half
            norms.append(torch.linalg.matrix_norm(gram - torch.eye(len(gram))))
    return torch.stack(norms).mean()


@torch.no_grad()
def compact(adapted: Any, linears: list[Linear]) -> Pairs:
    """The plain pairs; a matrix whose lambdas are all 0 has none. UnsupportedError when that is every matrix."""
    pairs: Pairs = {}
    for linear in linears:
        layer = adapted.base_model.model.get_submodule(linear.module)
        a, b, values = (getattr(layer, f"lora_{x}")["default"] for x in "ABE")
        kept = values.flatten().nonzero().flatten()
        if len(kept):
            scale = layer.scaling["default"] / (layer.ranknum["default"] + 1e-5)
            pairs[linear.module] = a[kept].numpy(), (b[:, kept] * values[kept, 0] * scale).numpy()
    if not pairs:
        raise UnsupportedError(
            "AdaLoRA has pruned every rank: the training changed nothing",
            hint="a larger --rate, more --steps, or another text",
        )
    return pairs

"""Train an upcycled mixture from its dense model: KL to the teacher, and a router gradient of its own (SparseMixer).

transformers computes the model; each layer's router is replaced by one that routes as quant.distill.sparsemixer does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from converters.checkpoint import Checkpoint
from quant.adapters.training import divergence, load_model
from quant.distill import training as loop
from quant.distill.sparsemixer import Method, balance, route
from quant.distill.training import Report, TrainOptions, sample
from quant.tensor_file import rewrite


@dataclass(frozen=True)
class MoeTraining:
    """gate_gradient, method: `sparsemixer.rule`'s; the defaults are GRIN's. balance: weight of the load balancing loss
    (GRIN's alpha). batch: windows a step."""

    rate: float = 1e-4
    batch: int = 2
    method: Method = "heun"
    gate_gradient: bool = False
    balance: float = 0.01


class Router(torch.nn.Module):
    """PhiMoE's router, with the gradient of `settings`; keeps the last pass's load balancing loss."""

    def __init__(self, weight: torch.nn.Parameter, tolerance: float, settings: MoeTraining) -> None:
        super().__init__()
        self.weight = weight
        self.balance = torch.zeros(())
        self._tolerance, self._settings = tolerance, settings

    def forward(self, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """hidden [n, width] to scores [n, experts], weights [n, 2] and experts int64 [n, 2]."""
        scores = functional.linear(hidden, self.weight)
        experts, weights = route(
            scores,
            tolerance=self._tolerance,
            training=self.training,
            method=self._settings.method,
            gate_gradient=self._settings.gate_gradient,
        )
        self.balance = balance(scores, experts)
        return scores, weights, experts


def load_student(directory: Path, settings: MoeTraining) -> Any:
    """The mixture in `directory`, every weight to be trained."""
    model = load_model(directory)
    for layer in model.model.layers:
        weight, tolerance = layer.mlp.router.weight, 2 * layer.mlp.router.router_jitter_noise
        layer.mlp.router = Router(weight, tolerance, settings)
    return model.requires_grad_(requires_grad=True)


def train(
    student: Any,
    teacher: Any,
    windows: NDArray[np.int64],
    options: TrainOptions,
    settings: MoeTraining,
    *,
    state: Path | None = None,
    run: str = "",
    report: Callable[[Report], None] | None = None,
) -> dict[str, float]:
    """Train `student` (`load_student`) against the dense `teacher`; windows: token ids [n, length].

    The last losses by name, and all else, as `quant.distill.training.train`.
    """
    optimizer = torch.optim.AdamW(student.parameters(), lr=settings.rate, weight_decay=0.0)

    def losses(batch: torch.Tensor) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            expected = teacher(input_ids=batch, use_cache=False).logits
        kl = divergence(expected, student(input_ids=batch, use_cache=False).logits)
        loads = torch.stack([layer.mlp.router.balance for layer in student.model.layers])
        return {"kl": kl, "balance": settings.balance * loads.mean()}

    return loop.train(
        student,
        optimizer,
        lambda step: torch.from_numpy(windows[sample(options.seed, step, len(windows), settings.batch)]),
        losses,
        options,
        state=state,
        run=run,
        report=report,
    )


def save(student: Any, checkpoint: Checkpoint, directory: Path) -> None:
    """The trained weights in the layout and dtype of `checkpoint`, that of the mixture before, into `directory`."""
    inner = student.config.intermediate_size

    def values(name: str) -> NDArray[Any]:
        found: NDArray[np.float32] = _find(student, name, inner).detach().numpy()
        return found.astype(checkpoint.read(name, 0, 0).dtype)

    rewrite(checkpoint, directory, values)


def _find(student: Any, name: str, inner: int) -> Any:
    """The parameter that the hub calls `name`; transformers stacks experts, and gate on up."""
    if ".block_sparse_moe." not in name:
        return student.get_parameter(name)
    layer, part = name.split(".block_sparse_moe.")
    mlp = student.get_submodule(f"{layer}.mlp")
    if part == "gate.weight":
        return mlp.router.weight
    _, expert, matrix, _ = part.split(".")
    if matrix == "w2":
        return mlp.experts.down_proj[int(expert)]
    both = mlp.experts.gate_up_proj[int(expert)]
    return both[:inner] if matrix == "w1" else both[inner:]

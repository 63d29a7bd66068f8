"""CAMERO (Liang et al. 2022, arXiv 2204.06625): several heads over one encoder, perturbed apart and drawn together.

Head j answers from a pass of its own, with a perturbation of its own: other dropout, or with r3f noise on the
embeddings besides. The loss is

    (1/n) sum_j CE(f_j, y) + a (1/n) sum_j D(f_j, g_j),   D(p, q) = KL(p || q) + KL(q || p)

where g_j is the mean of all logits (`ensemble`) or the next head's in a cycle drawn anew each step (`pairwise`); the
gradient goes through both sides. What answers after training is the mean of the logits, without perturbation.

Here a head is the last linear layer alone, and what lies below it, a pooler's tanh too, is shared: so the mean of n
heads is one head with averaged weight and bias, exactly, and the model that is written is as small and fast as one.
The paper's code gives each head a pooler of its own, for which no single pooler computes the mean. Deviations besides:
the heads begin as copies of the student's, which perturbation takes apart, where the paper's begin at random; the
optimizer is that of the other methods, not Adamax; a1 > 0 adds the KL of the teacher's answers to the heads' mean,
which the paper, having no teacher, does not.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch.nn import functional

from quant.distill.losses import kl_loss, task_loss
from quant.distill.models import Batch, Examples, forward, freeze
from quant.distill.optimizers.groups import Optimizing, make_optimizer, output_layers
from quant.distill.order import Item, Order, TedOptions, Told, counts
from quant.distill.training import Losses, train

Perturbation = Literal["dropout", "r3f"]
Target = Literal["ensemble", "pairwise"]


@dataclass(frozen=True)
class Camero:
    """consistency: a above. noise: standard deviation of r3f's, SMART's 1e-5."""

    heads: int = 4
    perturbation: Perturbation = "dropout"
    target: Target = "ensemble"
    consistency: float = 1.0
    noise: float = 1e-5


class Heads(torch.nn.Module):
    """Copies of a linear layer; a pass goes through the one that is `chosen`, or is the mean of all (None)."""

    def __init__(self, layer: torch.nn.Linear, count: int) -> None:
        super().__init__()
        self.heads = torch.nn.ModuleList(copy.deepcopy(layer) for _ in range(count))
        self.chosen: int | None = None

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """features [.., width] to logits [.., classes]."""
        if self.chosen is not None:
            logits: torch.Tensor = self.heads[self.chosen](features)
            return logits
        return torch.stack([head(features) for head in self.heads]).mean(0)

    def merged(self) -> torch.nn.Linear:
        """One layer that computes the mean: its weight and bias are the heads' means."""
        layer = copy.deepcopy(self.heads[0])
        assert isinstance(layer, torch.nn.Linear)
        with torch.no_grad():
            for name, parameter in layer.named_parameters():
                parameter.copy_(torch.stack([head.get_parameter(name) for head in self.heads]).mean(0))
        return layer


def split_head(student: Any, count: int) -> Heads:
    """Put `count` heads in the place of the student's one; returns them."""
    layer = output_layers(student)[-1]
    heads = Heads(layer, count)
    _replace(student, layer, heads)
    return heads


def merge_heads(student: Any) -> None:
    """Put the averaged head back, in place."""
    for heads in [m for m in student.modules() if isinstance(m, Heads)]:
        _replace(student, heads, heads.merged())


def distill(
    teacher: Any,
    student: Any,
    examples: Examples,
    options: TedOptions,
    settings: Camero,
    *,
    state: Path | None = None,
    run: str = "",
    report: Told | None = None,
    device: str = "cpu",
) -> dict[str, float]:
    """Train an encoder `student`, in place; it leaves with one head. Arguments and errors as those of `ted.distill`.

    Of `options` the stages and weights of TED are not used, but for `kl`.
    """
    freeze(teacher.to(device))
    heads = split_head(student, settings.heads)
    student.to(device)

    def losses(item: Item) -> Losses:
        return camero_losses(item[0], teacher, student, heads, options, settings)

    last = train(
        student,
        make_optimizer(student, student, Optimizing(options.rate, options.optimizer, options.base_width)),
        Order(examples, options, device),
        losses,
        options.train,
        state=state and state / "camero.pt",
        run=run,
        report=lambda told: report("heads", told) if report else None,
        counts=counts,
    )
    merge_heads(student)
    return last


def camero_losses(
    batch: Batch, teacher: Any, student: Any, heads: Heads, options: TedOptions, settings: Camero
) -> Losses:
    """Task and consistency, and the teacher's answers where `options.kl` > 0, weighted."""
    found = perturbed_logits(batch, student, heads, settings)
    task = torch.stack([task_loss(logits, batch) for logits in found]).mean()
    terms = {"task": task, "consistency": settings.consistency * consistency(found, settings.target)}
    if options.kl:
        with torch.no_grad():
            wanted, _ = forward(teacher, batch, ())
        terms["kl"] = options.kl * kl_loss(torch.stack(found).mean(0), wanted, batch, options.temperature)
    return terms


def perturbed_logits(batch: Batch, student: Any, heads: Heads, settings: Camero) -> list[torch.Tensor]:
    """The logits [batch, classes] of each head, from a pass of its own."""
    found = []
    noisy = settings.perturbation == "r3f"
    for number in range(len(heads.heads)):
        heads.chosen = number
        with _noise(student, settings.noise) if noisy else nullcontext():
            found.append(forward(student, batch, ())[0])
    heads.chosen = None
    return found


def consistency(logits: Sequence[torch.Tensor], target: Target) -> torch.Tensor:
    """Mean over the heads of D(head, its target), each the mean over the batch; logits [batch, classes] a head."""
    if target == "ensemble":
        mean = torch.stack(list(logits)).mean(0)
        pairs = [(each, mean) for each in logits]
    else:
        order = torch.randperm(len(logits)).tolist()
        pairs = [(logits[a], logits[b]) for a, b in zip(order, order[1:] + order[:1], strict=True)]
    return torch.stack([_symmetric_kl(one, other) for one, other in pairs]).mean()


def _symmetric_kl(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    p, q = (functional.log_softmax(z.float(), -1) for z in (one, other))
    return ((p.exp() - q.exp()) * (p - q)).sum(-1).mean()


def _noise(student: Any, size: float) -> AbstractContextManager[Any]:
    """While it is open, what the embeddings give has normal noise of that standard deviation on it."""

    def add(module: object, inputs: object, output: torch.Tensor) -> torch.Tensor:
        return output + size * torch.randn_like(output)

    handle: AbstractContextManager[Any] = student.base_model.embeddings.register_forward_hook(add)
    return handle


def _replace(model: Any, old: torch.nn.Module, new: torch.nn.Module) -> None:
    name = next(name for name, module in model.named_modules() if module is old)
    parent, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, new)

"""Parametric knowledge transfer: the teacher's most sensitive pieces as the student's LoRA (arXiv 2310.11451).

The teacher's layers and submatrices with the largest sum of |weight x gradient| over a few examples are extracted, cut
to rank r by SVD, and taken as the first value of a LoRA of a student that has weights of its own. W0 - B0 A0 stands
under it, so that the student is at step 0 what it was; merged after training it is W0 - B0 A0 + B A.

The paper cuts each matrix by itself, which tears heads and neurons apart. Here q, k, v and o share their key-value
groups, and gate, up and down their neurons. Decoders of the Phi-3 layout.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from quant.distill.losses import task_loss
from quant.distill.models import Examples, layers_of

Scores = NDArray[np.float64]
EXAMPLES = 32
"""The paper's number of seed samples."""


class Lora(torch.nn.Module):
    """y = (base + B A) x; base [out, in] is frozen, A [rank, in] and B [out, rank] are trained."""

    def __init__(self, weight: torch.Tensor, b: torch.Tensor, a: torch.Tensor) -> None:
        super().__init__()
        self.base = torch.nn.Parameter(weight.detach() - b @ a, requires_grad=False)
        self.a, self.b = torch.nn.Parameter(a.clone()), torch.nn.Parameter(b.clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, self.base) + functional.linear(functional.linear(x, self.a), self.b)

    def merged(self) -> torch.nn.Linear:
        """The same map as one matrix."""
        weight = (self.base + self.b @ self.a).detach()
        linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        linear.weight = torch.nn.Parameter(weight)
        return linear


@dataclass(frozen=True)
class Heads:
    """Sizes of a model's attention: key-value groups, queries a group, channels a head."""

    groups: int
    queries: int
    size: int

    @staticmethod
    def of(config: Any) -> Heads:
        groups, heads = config.num_key_value_heads, config.num_attention_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // heads
        return Heads(groups, heads // groups, size)

    def rows(self, groups: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows of qkv_proj, and columns of o_proj, that belong to `groups`."""
        q = (groups[:, None] * self.queries * self.size + np.arange(self.queries * self.size)).ravel()
        kv = (groups[:, None] * self.size + np.arange(self.size)).ravel()
        total = self.groups * self.size
        return np.concatenate([q, total * self.queries + kv, total * (self.queries + 1) + kv]), q


def sensitivity(model: Any, examples: Examples, count: int = EXAMPLES) -> dict[str, torch.Tensor]:
    """Sum over the first `count` examples of |weight x dL/dweight|, by name of the layers' matrices."""
    model.requires_grad_(True)
    model.eval()
    matrices = {name: p for name, p in layers_of(model).named_parameters() if p.ndim == 2}
    total = {name: torch.zeros_like(p) for name, p in matrices.items()}
    for i in range(min(count, len(examples.ids))):
        model.zero_grad(set_to_none=True)
        batch = examples.batch(np.array([i]))
        task_loss(model(input_ids=batch.ids, use_cache=False).logits, batch).backward()  # type: ignore[no-untyped-call]
        for name, p in matrices.items():
            assert p.grad is not None
            total[name] += (p.detach() * p.grad).abs()
    model.zero_grad(set_to_none=True)
    return total


def chosen_layers(scores: Mapping[str, torch.Tensor], count: int) -> tuple[int, ...]:
    """The `count` layers with the largest sums, in their order; of equal ones the first."""
    sums: dict[int, float] = {}
    for name, values in scores.items():
        layer = int(name.partition(".")[0])
        sums[layer] = sums.get(layer, 0.0) + float(values.double().sum())
    return tuple(sorted(sorted(sums, key=lambda i: (-sums[i], i))[:count]))


def block_sums(scores: Scores, rows: int, columns: int) -> Scores:
    """Sums of all contiguous [rows, columns] blocks, [R - rows + 1, C - columns + 1], by a summed-area table."""
    area = np.zeros((scores.shape[0] + 1, scores.shape[1] + 1))
    area[1:, 1:] = scores.cumsum(0).cumsum(1)
    return area[rows:, columns:] - area[:-rows, columns:] - area[rows:, :-columns] + area[:-rows, :-columns]


def best_pair(inner: Scores, outer: Scores, units: int, width: int, out: int) -> tuple[int, int, int]:
    """First unit, column of `inner` [units, in] and of `outer` [units, out] whose blocks have the largest sum."""
    one, other = block_sums(inner, units, width), block_sums(outer, units, out)
    first = int((one.max(1) + other.max(1)).argmax())
    return first, int(one[first].argmax()), int(other[first].argmax())


def transfer(teacher: Any, student: Any, scores: Mapping[str, torch.Tensor], rank: int) -> None:
    """Put the teacher's pieces as LoRA of `rank` into the student's layers, and freeze all else of it."""
    student.requires_grad_(False)
    layers: list[Any] = list(layers_of(student))
    sources: list[Any] = list(layers_of(teacher))
    theirs, own = Heads.of(teacher.config), Heads.of(student.config)
    inner, width = student.config.intermediate_size, student.config.hidden_size
    for layer, k in zip(layers, chosen_layers(scores, len(layers)), strict=True):
        found = {n: scores[f"{k}.{n}.weight"].double().numpy() for n in _names(sources[k])}
        of_group = [theirs.rows(np.array([g])) for g in range(theirs.groups)]
        qkv = np.stack([found["self_attn.qkv_proj"][rows].sum(0) for rows, _ in of_group])
        o = np.stack([found["self_attn.o_proj"][:, columns].sum(1) for _, columns in of_group])
        first, column, row = best_pair(qkv, o, own.groups, width, width)
        rows, columns = theirs.rows(np.arange(first, first + own.groups))
        gate_up = found["mlp.gate_up_proj"].reshape(2, -1, found["mlp.gate_up_proj"].shape[1]).sum(0)
        neuron, left, top = best_pair(gate_up, found["mlp.down_proj"].T, inner, width, width)
        neurons = np.arange(neuron, neuron + inner)
        both = np.concatenate([neurons, teacher.config.intermediate_size + neurons])
        places = {
            "self_attn.qkv_proj": (rows, column + np.arange(width)),
            "self_attn.o_proj": (row + np.arange(width), columns),
            "mlp.gate_up_proj": (both, left + np.arange(width)),
            "mlp.down_proj": (top + np.arange(width), neurons),
        }
        for name, (r, c) in places.items():
            piece = sources[k].get_submodule(name).weight.detach()[r][:, c]
            u, s, v = torch.linalg.svd(piece, full_matrices=False)
            b, a = u[:, :rank] * s[:rank], v[:rank]
            layer.set_submodule(name, Lora(layer.get_submodule(name).weight, b, a))


def merge(student: Any) -> None:
    """Make the LoRA of `transfer` part of the weights; the student has its own tensors again and nothing else."""
    for layer in layers_of(student):
        for name, module in list(layer.named_modules()):
            if isinstance(module, Lora):
                layer.set_submodule(name, module.merged())


def _names(layer: torch.nn.Module) -> list[str]:
    return [name for name, module in layer.named_modules() if isinstance(module, torch.nn.Linear)]

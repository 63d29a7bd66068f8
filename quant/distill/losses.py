"""The three terms of TED's second stage (arXiv 2210.01351): task, KL, filtered hidden states."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from quant.distill.models import Batch


def task_loss(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Mean cross-entropy of the labels, or of the next tokens."""
    return functional.cross_entropy(batch.predictions(logits).float(), batch.targets())


def kl_loss(
    student: torch.Tensor, teacher: torch.Tensor, batch: Batch, temperature: float = 2.0
) -> torch.Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)), the mean over predictions; T is 2 in TED's code."""
    s, t = (
        functional.log_softmax(batch.predictions(z).float() / temperature, -1) for z in (student, teacher)
    )
    return functional.kl_div(s, t, reduction="batchmean", log_target=True) * temperature**2


def hidden_loss(
    student: Sequence[torch.Tensor],
    teacher: Sequence[torch.Tensor],
    mask: torch.Tensor,
    *,
    relative: bool = False,
) -> torch.Tensor:
    """Mean over layers of the mean squared difference of [batch, length, m] at the positions that `mask` keeps.

    TED's code averages over padding too; here what padding holds has no say. `relative`: each position's error is
    divided by the mean square of the teacher's vector there. A decoder's residual stream has positions a thousand
    times larger than the rest, which the norms behind it take out again and a plain mean would be made of.
    """
    terms = []
    for s, t in zip(student, teacher, strict=True):
        s, t = s[mask].float(), t[mask].float()
        error = (s - t).square().mean(-1)
        terms.append((error / t.square().mean(-1).clamp_min(1e-12) if relative else error).mean())
    return torch.stack(terms).mean()

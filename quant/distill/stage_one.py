"""TED's stage I: a filter behind each layer learns the task, and the model that it reads stays as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from quant.distill.cut import Kind
from quant.distill.filters import Filters, FilterStage
from quant.distill.models import forward, freeze
from quant.distill.order import Item, Order, Told, counts, seeded
from quant.distill.training import Losses, train


def train_filters(
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

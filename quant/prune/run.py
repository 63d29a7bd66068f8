"""One pruning run: from a checkpoint's directory to the files of a pruned one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import Phi3ForCausalLM

from quant.distill.training import Report, TrainOptions, sample, train
from quant.lowrank.job import LoSparseJob
from quant.prune import phi3
from quant.prune.job import Job, PlatonJob
from quant.prune.platon import Platon
from quant.prune.schedule import Cubic
from quant.prune.settings import Settings

HELD_OUT = 10
"""One window in so many, the last ones, is not trained on; its loss is what a run reports."""


@dataclass(frozen=True)
class Outcome:
    """Mean loss in nats a token on the held-out windows, before and after; what stayed; the parameters' numbers."""

    loss_before: float
    loss_after: float
    kept: dict[str, Any]
    parameters_before: int
    parameters_after: int
    zeros: int

    def to_data(self) -> dict[str, Any]:
        return vars(self)


def run(
    source: Path,
    output: Path,
    windows: NDArray[Any],
    settings: Settings,
    *,
    state: Path,
    name: str,
    report: Callable[[Report], None],
) -> Outcome:
    """Prune the checkpoint in `source` while it trains on `windows` (int64 [n, length], n >= 2), and write
    model.safetensors and config.json into `output`.

    state: where an interrupted run goes on from; name: says which run that is. Raises what loading and training do.
    """
    torch.manual_seed(settings.seed)
    model = phi3.load(source)
    held = max(1, len(windows) // HELD_OUT)
    ids = torch.from_numpy(windows)
    training, held_out = ids[:-held], ids[-held:]
    before = sum(p.numel() for p in model.parameters())
    loss_before = mean_loss(model, held_out, settings.batch)
    job: Job = LoSparseJob(model, settings) if settings.method == "losparse" else PlatonJob(model, settings)
    platon = Platon(job.importance, _schedule(settings), job.pruner)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.rate, weight_decay=0.0)

    def batch(step: int) -> Tensor:
        return training[torch.from_numpy(sample(settings.seed, step, len(training), settings.batch))]

    train(
        model,
        optimizer,
        batch,
        lambda ids: {"loss": _loss(model, ids)},
        TrainOptions(steps=settings.steps, seed=settings.seed, bf16=settings.bf16),
        state=state,
        run=name,
        report=report,
        after_step=platon.after_step,
        also={"platon": platon},
    )
    platon.finish()
    dtypes, config = phi3.header(source)
    # What is measured has the precision of what is stored.
    phi3.round_to(model, dtypes)
    loss_after = mean_loss(model, held_out, settings.batch)
    tensors, config = job.written(dtypes, config)
    phi3.save(tensors, config, output)
    after = sum(tensor.numel() for tensor in tensors.values())
    return Outcome(loss_before, loss_after, job.pruner.to_data(), before, after, phi3.zeros(output))


def _schedule(settings: Settings) -> Cubic:
    """Of the weights' share; or, for units, of the way that is still to go."""
    phases = (settings.phase(settings.warmup), settings.phase(settings.settle))
    return Cubic(settings.keep or 0.0, settings.steps, *phases)


def _loss(model: Phi3ForCausalLM, ids: Tensor) -> Tensor:
    loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    assert isinstance(loss, Tensor)
    return loss


@torch.no_grad()
def mean_loss(model: Phi3ForCausalLM, windows: Tensor, batch: int) -> float:
    """Cross-entropy in nats, the mean over all predictions of the windows."""
    model.train(False)
    parts = (windows[i : i + batch] for i in range(0, len(windows), batch))
    return sum(_loss(model, part).item() * len(part) for part in parts) / len(windows)

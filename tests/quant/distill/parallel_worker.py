"""One of the processes of test_parallel: `python -m tests.quant.distill.parallel_worker DIR`.

Leaves what each scenario came to in DIR/<rank>.pt; launched alone, what one process with the whole batch comes to.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from converters.errors import EdgeError
from quant.distill.launch import place
from quant.distill.parallel import share
from quant.distill.training import Report, TrainOptions, sample, train

OPTIONS = TrainOptions(steps=8, seed=3, warm_up=2, save_every=100)
DRAWN = torch.Generator().manual_seed(1)
DATA, LENGTHS = torch.randn(24, 7, 6, generator=DRAWN), torch.randint(1, 8, (24,), generator=DRAWN)
Item = tuple[torch.Tensor, torch.Tensor]


def run(
    *, dropout: float = 0.0, poison: int = -1, stop: int = 0, state: Path | None = None
) -> dict[str, Any]:
    """A model of 7 positions, of which an example has its first few; two losses that are means over different items."""
    torch.manual_seed(0 if place().rank == 0 else 99)  # the first process's weights are everybody's
    model = torch.nn.Sequential(
        torch.nn.Linear(6, 9), torch.nn.Dropout(dropout), torch.nn.Tanh(), torch.nn.Linear(9, 6)
    )
    told: list[float] = []

    def batch(step: int) -> Item:
        mine = share(sample(3, step, len(DATA), 8))
        values = DATA[mine] * (torch.nan if step == poison and place().rank == place().size - 1 else 1)
        return values, torch.arange(7) < LENGTHS[mine][:, None]

    def losses(item: Item) -> dict[str, torch.Tensor]:
        x, mask = item
        y = model(x)
        return {"positions": (y - x)[mask].square().mean(), "examples": y[:, 0].abs().sum(-1).mean()}

    def counts(item: Item) -> dict[str, float]:
        return {"positions": float(item[1].sum()), "examples": float(len(item[0]))}

    def report(report: Report) -> None:
        told.append(report.loss)
        if report.step == stop and place().rank == place().size - 1:
            os.kill(os.getpid(), signal.SIGINT)

    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    last = train(model, optimizer, batch, losses, OPTIONS, state=state, report=report, counts=counts)
    return {"weights": [p.detach() for p in model.parameters()], "losses": told, "last": last}


def ends(action: Callable[[], Any]) -> str:
    """The name and the words of what the action raises."""
    try:
        action()
    except (KeyboardInterrupt, EdgeError) as error:
        return f"{type(error).__name__} {error}"
    return "nothing"


def main(directory: Path) -> None:
    found: dict[str, Any] = {"plain": run()}
    if place().size > 1:
        state = directory / "state.pt"
        found["whole"] = run(dropout=0.4)
        found["interrupted"] = ends(lambda: run(dropout=0.4, stop=3, state=state))
        found["saved"] = torch.load(state, weights_only=True)["step"]
        found["resumed"] = run(dropout=0.4, state=state)
        found["poisoned"] = ends(lambda: run(poison=4))
        found["elsewhere"] = ends(lambda: run(state=state if place().rank else directory / "nowhere.pt"))
    torch.save(found, directory / f"{place().rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

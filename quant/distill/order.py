"""What a distillation is asked for, and in which order it sees its examples: a function of the seed alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from quant.distill.models import Batch, Examples
from quant.distill.optimizers.groups import Name
from quant.distill.parallel import share
from quant.distill.training import Report, TrainOptions, sample

Method = Literal["ft", "kd", "lwd", "ted"]
Told = Callable[[str, Report], None]


@dataclass(frozen=True)
class TedOptions:
    """`kl` and `hidden` are the paper's alpha 1 and alpha 2. `filter_steps`, `filter_rate`: stage I.

    filters_per_step: how many filters a step of stage I trains, drawn anew (0: all, as in the paper); fewer cost less
    where each needs a pass through a vocabulary's matrix, and the loss is the same on average.
    optimizer, base_width: of stage II, as Optimizing's.
    """

    method: Method
    train: TrainOptions
    rate: float = 5e-4
    batch: int = 8
    kl: float = 1.0
    hidden: float = 1.0
    temperature: float = 2.0
    filter_steps: int = 100
    filter_rate: float = 1e-3
    filters_per_step: int = 0
    optimizer: Name = "adamw"
    base_width: int = 0


Item = tuple[Batch, int]


def counts(item: Item) -> dict[str, float]:
    """Of how many predictions, or positions, each loss of a batch is the mean."""
    predictions, positions = float(len(item[0].targets())), float(item[0].mask.sum())
    return dict.fromkeys(("task", "kl", "filters", "consistency"), predictions) | {"hidden": positions}


class Order:
    """Step -> (batch, step): this process's part of the examples, in an order that the seed alone decides."""

    def __init__(self, examples: Examples, options: TedOptions, device: str) -> None:
        self.examples, self.options, self.device = examples, options, device

    def __call__(self, step: int) -> Item:
        seed, size = self.options.train.seed, self.options.batch
        indices = share(sample(seed, step, len(self.examples.ids), size))
        return self.examples.batch(indices, self.device), step

    def filters(self, step: int, count: int) -> list[int]:
        """Which of `count` filters a step of stage I trains."""
        wanted = min(self.options.filters_per_step or count, count)
        return sorted(
            np.random.default_rng([self.options.train.seed, 1, step]).permutation(count)[:wanted].tolist()
        )


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """New weights are a function of the seed, and leave torch's generator as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield

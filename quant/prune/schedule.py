"""How much is left at each step of a pruning run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cubic:
    """The cubic schedule (arXiv 1710.01878, eq. 1; PLATON, arXiv 2206.12562, eq. 3) over steps 1..`steps`.

    The remaining ratio is `initial` up to step `warmup`, falls along a cubic, and is `final` from step
    `steps` - `settle` on. Raises ValueError where the phases do not fit into the steps.
    """

    final: float
    steps: int
    warmup: int
    settle: int
    initial: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.final <= self.initial <= 1:
            raise ValueError(f"ratios {self.initial} to {self.final}")
        if self.warmup < 0 or self.settle < 0 or self.warmup + self.settle >= self.steps:
            raise ValueError(f"{self.warmup} + {self.settle} steps do not fit into {self.steps}")

    def ratio(self, step: int) -> float:
        """The ratio that remains after `step`."""
        if step <= self.warmup:
            return self.initial
        if step >= self.steps - self.settle:
            return self.final
        done = (step - self.warmup) / (self.steps - self.settle - self.warmup)
        return self.final + (self.initial - self.final) * (1 - done) ** 3

    def settled(self, step: int) -> bool:
        """Whether the ratio falls no more: then what is pruned is held at zero after every step."""
        return step >= self.steps - self.settle

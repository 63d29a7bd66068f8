"""PLATON (arXiv 2206.12562, algorithm 1): what is hooked into a training loop after every step of its optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor

from quant.prune.importance import Importance
from quant.prune.schedule import Cubic


class Pruner(Protocol):
    """What is pruned: single weights or whole units."""

    def select(self, scores: Mapping[str, Tensor], ratio: float) -> None: ...
    def apply(self) -> None: ...
    def to_data(self) -> dict[str, Any]: ...


class Platon:
    """Scores, schedule and pruner together. `after_step` has the signature that `quant.distill.training` calls.

    While the ratio falls, weights are set to zero at the end of every window and may grow again until the next; so
    the sets that are pruned are not nested. Once it is at its last value, they are held at zero after every step.
    """

    def __init__(self, importance: Importance, schedule: Cubic, pruner: Pruner) -> None:
        self._importance, self._schedule, self._pruner = importance, schedule, pruner
        self._selected = False

    def after_step(self, step: int) -> None:
        """step: how many are done."""
        new = self._importance.observe()
        held = self._schedule.settled(step)
        if (new and step > self._schedule.warmup) or (held and not self._selected):
            self._select(step)
        elif held:
            self._pruner.apply()

    def finish(self) -> None:
        """After the last step, or where a finished run was taken up again: exactly the final ratio is left."""
        self._select(self._schedule.steps)

    def state_dict(self) -> dict[str, Any]:
        return self._importance.state_dict()

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        self._importance.load_state_dict(state)
        # Chosen anew from the same scores, which gives the same.
        self._selected = False

    def _select(self, step: int) -> None:
        self._pruner.select(self._importance.scores(), self._schedule.ratio(step))
        self._pruner.apply()
        self._selected = self._schedule.settled(step)

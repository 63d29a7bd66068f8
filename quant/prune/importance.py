"""The importance of every weight: how sensitive the loss is to it, how uncertain that figure is; or less."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from quant.prune.settings import Score


@dataclass(frozen=True)
class Smoothing:
    """beta1 and beta2 of eqs. 6 and 8; window: steps whose mean sensitivity enters them at once."""

    beta1: float = 0.85
    beta2: float = 0.95
    window: int = 10


@dataclass
class Importance:
    """Sensitivity, its moving average and its uncertainty for some parameters (arXiv 2206.12562, eqs. 4 to 9).

        I = |w dL/dw|, averaged over the steps of a window; at the end of one
        Ibar <- beta1 Ibar + (1 - beta1) I
        U    <- beta2 U    + (1 - beta2) |I - Ibar|
        S    =  Ibar U

    Call `observe` after the optimizer's step, with the gradients that it used: the weight is the updated one, as in
    the authors' experiments, so that a weight that was just set to zero and moved has a sensitivity again. Three
    float32 tensors of each parameter's shape are kept. A common factor c of all losses multiplies S by c^2 and changes
    no ranking.

    score: `platon` for S; what it is held against is `sensitivity`, Ibar alone (U = 1), and `magnitude`, |w| as it
    stands when weights are chosen, for which nothing is kept.
    """

    parameters: Mapping[str, Tensor]
    smoothing: Smoothing = field(default_factory=Smoothing)
    score: Score = "platon"

    def __post_init__(self) -> None:
        self.seen = 0
        watched = self.parameters if self.score != "magnitude" else {}
        self._sum, self._mean, self._uncertainty = (
            {name: torch.zeros_like(p, dtype=torch.float32) for name, p in watched.items()} for _ in range(3)
        )

    @torch.no_grad()
    def observe(self) -> bool:
        """Take in the sensitivities of one step; True when a window ended and the scores are new."""
        for name, total in self._sum.items():
            parameter = self.parameters[name]
            if parameter.grad is not None:
                total.add_((parameter * parameter.grad).abs())
        self.seen += 1
        if self.seen % self.smoothing.window:
            return False
        beta1, beta2 = self.smoothing.beta1, self.smoothing.beta2
        for name, total in self._sum.items():
            sensitivity = total.div_(self.smoothing.window)
            mean = self._mean[name].lerp_(sensitivity, 1 - beta1)
            self._uncertainty[name].lerp_((sensitivity - mean).abs_(), 1 - beta2)
            sensitivity.zero_()
        return True

    def scores(self) -> dict[str, Tensor]:
        """The chosen score of every weight, float32, in the shapes of the parameters."""
        if self.score == "magnitude":
            return {name: p.detach().abs().float() for name, p in self.parameters.items()}
        if self.score == "sensitivity":
            return self._mean
        return {name: self._mean[name] * self._uncertainty[name] for name in self.parameters}

    def sensitivities(self) -> dict[str, Tensor]:
        """Ibar of every weight."""
        return self._mean

    def state_dict(self) -> dict[str, Any]:
        """All that a run that goes on later needs."""
        kinds = {"sum": self._sum, "mean": self._mean, "uncertainty": self._uncertainty}
        return {"seen": self.seen, **kinds}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Go on where `state` was taken. KeyError where it is of other parameters."""
        self.seen = state["seen"]
        for kind, each in (("sum", self._sum), ("mean", self._mean), ("uncertainty", self._uncertainty)):
            for name, tensor in each.items():
                tensor.copy_(state[kind][name])

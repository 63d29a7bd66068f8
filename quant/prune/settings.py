"""What a pruning run is asked to do; free of torch, so that it can be checked before torch is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from converters.errors import UnsupportedError

BLOCK = 32
"""Neurons are kept in multiples of so many, where the model has such a multiple: the rows of a quantized down
projection are cut into blocks of 32."""
Method = Literal["platon", "losparse"]
Score = Literal["platon", "sensitivity", "magnitude"]
UNITS = ("layers", "groups", "heads", "neurons")


@dataclass(frozen=True)
class Sizes:
    """layers; then in each: groups (key-value heads), query heads of one group, neurons."""

    layers: int
    groups: int
    heads: int
    neurons: int

    def toward(self, final: Sizes, done: float) -> Sizes:
        """These sizes at done = 0, `final` exactly at done = 1, between them whole numbers on the line."""
        pairs = zip(self.values(), final.values(), strict=True)
        return Sizes(*(b + round((a - b) * (1 - done)) for a, b in pairs))

    def part(self, ratios: Mapping[str, float]) -> Sizes:
        """The nearest whole numbers to these shares of each, one at least; neurons in multiples of BLOCK."""
        step = {"neurons": BLOCK if self.neurons % BLOCK == 0 else 1}
        counts = (
            max(1, round(size * ratios.get(unit, 1.0) / step.get(unit, 1))) * step.get(unit, 1)
            for unit, size in zip(UNITS, self.values(), strict=True)
        )
        return Sizes(*counts)

    def values(self) -> tuple[int, int, int, int]:
        return self.layers, self.groups, self.heads, self.neurons


@dataclass(frozen=True)
class Settings:
    """What stays, by method:

    platon     keep: the share of the matrices' weights (unstructured), or None where `units` has the share of each
               kind of unit
    losparse   low_rank: the share of each matrix's values that its thin factors have, and keep: that of the rows
               beside them

    score: what stays is what has the highest: PLATON's, the sensitivity without its uncertainty, or |w|
    warmup, settle: shares of the steps before pruning begins and after it ends; rate: AdamW's; beta1, beta2, window: as
    in `quant.prune.importance.Smoothing`; length in tokens, batch in windows.
    """

    keep: float | None
    units: Mapping[str, float]
    steps: int = 1000
    warmup: float = 0.1
    settle: float = 0.3
    batch: int = 4
    length: int = 256
    rate: float = 5e-5
    seed: int = 0
    beta1: float = 0.85
    beta2: float = 0.95
    window: int = 10
    bf16: bool = False
    method: Method = "platon"
    low_rank: float | None = None
    score: Score = "platon"

    def check(self) -> None:
        """Raise UnsupportedError for what makes no run."""
        if self.method == "losparse":
            if self.keep is None or self.low_rank is None or self.units or self.score != "platon":
                raise UnsupportedError(
                    "LoSparse takes a share for the factors, one for the rows beside them, and nothing else",
                    hint="--method losparse --low-rank 0.2 --keep 0.1",
                )
        elif self.low_rank is not None:
            raise UnsupportedError("only LoSparse has factors", hint="add --method losparse")
        elif (self.keep is None) == (not self.units):
            raise UnsupportedError(
                "either single weights are pruned or whole units",
                hint="give --keep, or one or more of --layers, --groups, --heads, --neurons",
            )
        shares = {"low-rank": self.low_rank, "keep": self.keep, **self.units}
        for name, share in shares.items():
            if share is not None and not 0 < share <= 1:
                raise UnsupportedError(
                    f"--{name} {share:g} is no share that can stay", hint=f"for one half: --{name} 0.5"
                )
        if self.phase(self.warmup) + self.phase(self.settle) >= self.steps:
            raise UnsupportedError(
                f"of {self.steps} steps none is left to prune in between --warmup {self.warmup:g} and "
                f"--settle {self.settle:g}",
                hint="more --steps, or smaller shares before and after",
            )
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1):
            raise UnsupportedError(
                f"--beta1 {self.beta1:g} and --beta2 {self.beta2:g} must be in 0..1, without 1",
                hint="leave them out for 0.85 and 0.95",
            )

    def phase(self, share: float) -> int:
        """A share of the steps as a number of steps."""
        return round(share * self.steps)

    def to_data(self) -> dict[str, Any]:
        return {k: dict(v) if isinstance(v, Mapping) else v for k, v in vars(self).items()}

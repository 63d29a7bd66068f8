"""The outcome of an evaluation: figures for people and JSON, and every prediction's numbers for a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.evaluation.statistics import Estimate
from edge.evaluation.windows import Windows

SHOWN_WORST = 10
"""Worst predictions in the JSON; the result holds more."""


@dataclass(frozen=True)
class Candidate:
    """A token that one of the two thought likely, and its probability in both."""

    token: int
    reference: float
    artifact: float


@dataclass(frozen=True)
class Worst:
    """A prediction with a large KL: made after the token at `position` of `window`; `target` came in the text."""

    window: int
    position: int
    kl: float
    target: int
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True)
class Positions:
    """Every scored prediction.

    nll, reference_nll, kl: float32 [windows, scored], in nats; column j is the prediction made at position
    windows.first + j. reference_nll and kl are None without a reference. worst: largest KL first. pieces: the bytes
    of every token of the windows and candidates.
    """

    windows: Windows
    nll: NDArray[np.float32]
    reference_nll: NDArray[np.float32] | None
    kl: NDArray[np.float32] | None
    worst: tuple[Worst, ...]
    pieces: Mapping[int, bytes]

    def text(self, tokens: list[int]) -> str:
        """The text of consecutive tokens; an unfinished character is U+FFFD."""
        return b"".join(self.pieces[token] for token in tokens).decode("utf-8", "replace")

    def before(self, worst: Worst, tokens: int = 24) -> str:
        """The text that leads to a prediction: its last `tokens` tokens."""
        row = self.windows.ids[worst.window]
        return self.text(row[max(0, worst.position + 1 - tokens) : worst.position + 1].tolist())

    def worst_data(self, worst: Worst) -> dict[str, Any]:
        return {
            "window": worst.window,
            "position": worst.position,
            "kl": worst.kl,
            "before": self.before(worst),
            "target": self.text([worst.target]),
            "candidates": [
                {
                    "token": c.token,
                    "text": self.text([c.token]),
                    "reference": c.reference,
                    "artifact": c.artifact,
                }
                for c in worst.candidates
            ],
        }


@dataclass(frozen=True)
class Evaluation:
    """One artifact on one text. Perplexities are of the scored predictions, KL(reference || artifact) in nats.

    ln_ratio: ln(perplexity / reference_perplexity). What needs a reference is None without one.
    """

    artifact: str
    runtime: str
    reference: str | None
    reference_runtime: str | None
    text: str
    perplexity: Estimate
    reference_perplexity: Estimate | None
    ln_ratio: Estimate | None
    kl_mean: Estimate | None
    kl_median: Estimate | None
    kl_p99: Estimate | None
    kl_max: float | None
    top1: Estimate | None
    positions: Positions

    def to_data(self) -> dict[str, Any]:
        """All but the arrays; of the worst predictions the first few."""
        estimates = (
            "perplexity",
            "reference_perplexity",
            "ln_ratio",
            "kl_mean",
            "kl_median",
            "kl_p99",
            "top1",
        )
        found: dict[str, Estimate | None] = {name: getattr(self, name) for name in estimates}
        return {
            "artifact": self.artifact,
            "runtime": self.runtime,
            "reference": self.reference,
            "reference_runtime": self.reference_runtime,
            "text": self.text,
            "method": self.positions.windows.to_data(),
            **{name: estimate and estimate.to_data() for name, estimate in found.items()},
            "kl_max": self.kl_max,
            "worst": [self.positions.worst_data(w) for w in self.positions.worst[:SHOWN_WORST]],
        }

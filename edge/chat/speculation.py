"""Speculative decoding: several guessed tokens are checked in one run of the model (arXiv 2211.17192, 2302.01318).

The papers accept a guess x with probability min(1, p(x) / q(x)) and otherwise draw from what remains of p. Our
drafters say one token for certain, q(x) = 1: then drawing from p as without guesses, and keeping the guesses
for as long as they are what was drawn, is that same rule. So the answer of a seed stays the same, greedy or not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.chat.drafts import Drafter
from edge.runtimes.protocol import Runtime


@dataclass
class Counts:
    """Of one answer: runs of the model after the prompt, guesses that were checked, those that were right."""

    steps: int = 0
    drafted: int = 0
    accepted: int = 0

    @property
    def acceptance(self) -> float:
        return self.accepted / self.drafted if self.drafted else 0.0

    @property
    def tokens_per_step(self) -> float:
        return (self.steps + self.accepted) / self.steps if self.steps else 0.0

    def to_data(self) -> dict[str, float]:
        return {
            "steps": self.steps,
            "drafted_tokens": self.drafted,
            "accepted_tokens": self.accepted,
            "acceptance": round(self.acceptance, 4),
            "tokens_per_step": round(self.tokens_per_step, 4),
        }


class Speculation:
    """Gives the logits after each token, as `Runtime.append` does, often without running the model.

    How many tokens are guessed at once follows what was right lately, from 1 to `most`. exact: only where the
    engine gives a token the same bits alone and among others; otherwise every token runs among others, so
    that answers do not depend on the guesses, but may differ from plain decoding's in near ties.
    """

    def __init__(
        self,
        runtime: Runtime,
        drafter: Drafter,
        most: int,
        note: Callable[[str], None] = lambda line: None,
        *,
        exact: bool = True,
    ) -> None:
        self.counts = Counts()
        self._runtime = runtime
        self._drafter = drafter
        self._most = most
        self._size = most
        self._note = note
        self._exact = exact
        self._least: int | None = None
        self._guesses: list[int] = []
        self._rows = np.empty((0, runtime.vocab_size), np.float32)
        self._taken = 0

    def start(self, ids: list[int]) -> None:
        """A new answer begins; the model's cache holds `ids`."""
        self.counts = Counts()
        self._guesses, self._taken = [], 0
        if self._least is None:
            self._least = self._measure(ids)

    def append(self, ids: list[int]) -> NDArray[np.float32]:
        """Logits after `ids`, all tokens so far; the last one is new since the last call."""
        if self._taken < len(self._guesses) and self._guesses[self._taken] == ids[-1]:
            self._taken += 1
            self.counts.accepted += 1
            row: NDArray[np.float32] = self._rows[self._taken]
            return row
        self._adapt()
        self._runtime.rewind(len(ids) - 1)
        self._guesses, self._taken = self._propose(ids), 0
        self.counts.steps += 1
        self.counts.drafted += len(self._guesses)
        beside = self._guesses or [ids[-1]] * ((self._least or 1) - 1)
        if not beside or self._runtime.room < 2:
            return self._runtime.append(ids[-1:])
        self._rows = self._runtime.append_all([ids[-1], *beside])
        first: NDArray[np.float32] = self._rows[0]
        return first

    def _propose(self, ids: list[int]) -> list[int]:
        room = self._runtime.room - 1
        return self._drafter.propose(ids, min(self._size, room)) if self._least and room > 0 else []

    def _adapt(self) -> None:
        if self._guesses:
            right = self._taken == len(self._guesses)
            self._size = min(self._most, self._size + 2) if right else max(1, self._size - 1)

    def _measure(self, ids: list[int]) -> int | None:
        """The fewest rows in which every token is to run, for its logits not to depend on the guesses.

        1 where the engine gives a row the same bits alone and among others; 2, unless the answer must be exact,
        where only rows among others are alike; 0 (no speculation) where none are; None where there is no room to see.
        """
        # Behind the prompt: run again among fewer, its own last token might get other bits than it has.
        runtime, token = self._runtime, ids[-1]
        most = min(self._most + 1, runtime.room)
        if most < 2:
            return None
        alone = runtime.append([token])
        rows = []
        for count in sorted({2, min(3, most), most}):
            runtime.rewind(len(ids))
            rows.append(runtime.append_all([token] * count)[0])
        runtime.rewind(len(ids))
        if any(not np.array_equal(row, rows[0]) for row in rows):
            self._note(f"no speculation: {runtime.name} rounds a token's logits by what runs beside it")
            return 0
        if np.array_equal(alone, rows[0]):
            return 1
        how = (
            f"{runtime.name} rounds a token that runs alone otherwise than one among others (here by "
            f"{np.abs(alone - rows[0]).max():.2g})"
        )
        if self._exact:
            self._note(f"no speculation: {how}; --inexact lets near ties be decided otherwise")
            return 0
        self._note(f"{how}: near ties may be decided otherwise than without speculation")
        return 2

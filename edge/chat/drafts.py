"""What may come next, guessed cheaply: the same words earlier in the context, or a smaller model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from converters.errors import UnsupportedError
from edge.chat.prefix import common
from edge.runtimes.protocol import Runtime

_LONGEST, _SHORTEST = 4, 2
"""Tokens that must have stood together before: one alone is followed by too many different things."""


class Drafter(Protocol):
    """A guess never changes an answer, only how fast it comes."""

    name: str

    def propose(self, ids: Sequence[int], count: int) -> list[int]:
        """At most `count` ids that may follow `ids`; none when there is nothing to say."""


class PromptLookup:
    """What followed the latest earlier place where the last tokens stood (A. Saxena, prompt lookup decoding, 2023)."""

    name = "prompt lookup"

    def propose(self, ids: Sequence[int], count: int) -> list[int]:
        known = np.asarray(ids, np.int64)
        for size in range(_LONGEST, _SHORTEST - 1, -1):
            places = len(known) - size
            if places < 1:
                continue
            same = np.ones(places, bool)
            for i in range(size):
                same &= known[i : i + places] == known[places + i]
            found = np.flatnonzero(same)
            if len(found):
                start = int(found[-1]) + size
                return [int(i) for i in known[start : start + count]]
        return []


class DraftModel:
    """The likeliest continuation by another, smaller model of the same vocabulary, for as long as it is sure.

    least: the probability that it must give a guess. One that is wrong costs its own run and a row of the model's.
    """

    def __init__(self, runtime: Runtime, least: float = 0.0) -> None:
        self._runtime = runtime
        self._least = least
        self._cached: list[int] = []
        self.name = f"draft model on {runtime.name}"

    def propose(self, ids: Sequence[int], count: int) -> list[int]:
        """Nothing once `ids` fill the draft model's context."""
        runtime = self._runtime
        count = min(count, runtime.context_length - len(ids))
        if count < 1:
            return []
        same = min(common(self._cached, ids), len(ids) - 1)
        runtime.rewind(same)
        self._cached = []  # what an interrupt leaves
        found: list[int] = []
        logits = runtime.append(ids[same:])
        while self._sure(logits):
            found.append(int(np.argmax(logits)))
            if len(found) == count:
                break
            logits = runtime.append(found[-1:])
        self._cached = [*ids, *found][: runtime.position]
        return found

    def _sure(self, logits: NDArray[np.float32]) -> bool:
        # The likeliest token's probability is 1 over the sum of all, each as a share of it.
        return not self._least or self._least * float(np.exp(logits - logits.max()).sum()) <= 1


def check_vocabulary(target: Runtime, draft: Runtime) -> None:
    """Raises UnsupportedError naming the first token that the two do not share."""
    hint = "a draft model needs the same tokenizer; --prompt-lookup needs no draft model"
    if draft.vocab_size != target.vocab_size:
        raise UnsupportedError(
            f"the draft model has {draft.vocab_size} tokens, the model {target.vocab_size}", hint=hint
        )
    for token in range(target.vocab_size):
        theirs, ours = draft.token_bytes(token), target.token_bytes(token)
        if theirs != ours:
            raise UnsupportedError(
                f"the draft model's token {token} is {theirs!r}, the model's {ours!r}", hint=hint
            )
    texts = {*target.dialect().special_texts, *draft.dialect().special_texts}
    for text in sorted(texts):
        mine, other = target.encode(text, special=True), draft.encode(text, special=True)
        if mine != other:
            raise UnsupportedError(
                f"the special token {text!r} is {other} in the draft model, {mine} in the model", hint=hint
            )

"""One answer, token by token: what is chosen, when it ends, and the text that is certain."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge.chat.reading import Reader
from edge.chat.sampling import Sampling, sample
from edge.chat.stream import TextStream


class Constraint(Protocol):
    """What an answer must look like."""

    def allowed(self) -> NDArray[np.bool_]:
        """Of every token, whether it may come next: bool [vocab_size], at least one of them True."""

    def take(self, token: int) -> None:
        """The token that was chosen."""


@dataclass(frozen=True)
class Ending:
    """stop_ids end an answer, and so do the texts of `stop`. trim: SentencePiece puts a space before a first word; a
    chat answer starts without it."""

    max_tokens: int
    stop: tuple[str, ...]
    stop_ids: frozenset[int]
    trim: bool


@dataclass(frozen=True)
class Step:
    """A chosen token, the logits that the model gave (float32 [vocab_size]), and the text that is certain by it: ""
    while a character or a stop string may still be unfinished. token None: the rest of the text, at the end."""

    token: int | None
    text: str
    logits: NDArray[np.float32]


class Decoding:
    """An answer as it is made: iterate over it, once. `tokens` and `stop` (see `Answer`; "" so far) grow with it."""

    def __init__(
        self,
        reader: Reader,
        logits: NDArray[np.float32],
        ending: Ending,
        sampling: Sampling,
        random: np.random.Generator,
        constraint: Constraint | None = None,
    ) -> None:
        """logits: what `reader` gave for the prompt."""
        self.tokens: list[int] = []
        self.stop = ""
        self.first = time.perf_counter()
        self.interrupted = False
        self._reader = reader
        self._logits = logits
        self._ending = ending
        self._sampling = sampling
        self._random = random
        self._constraint = constraint
        self._prompt = len(reader.cached)
        self._trim = ending.trim

    def __iter__(self) -> Iterator[Step]:
        stream = TextStream(self._ending.stop)
        while not self.stop:
            token = self._choose()
            if not self.tokens:
                self.first = time.perf_counter()
            self.tokens.append(token)
            if token in self._ending.stop_ids:
                self.stop = "stop_token"
                break
            text = stream.feed(self._reader.runtime.token_bytes(token))
            self.stop = self._reason(stream)
            yield Step(token, self._clean(text), self._logits)
            if not self.stop:
                self._logits = self._reader.append(token)
        if rest := self._clean(stream.finish()):
            yield Step(None, rest, self._logits)

    def _choose(self) -> int:
        logits = self._logits
        if self._constraint:
            logits = np.where(self._constraint.allowed(), logits, np.float32(-np.inf))
        token = sample(logits, self._sampling, self._reader.cached, self._random)
        if self._constraint:
            self._constraint.take(token)
        return token

    def _reason(self, stream: TextStream) -> str:
        """Why to stop before the next token; "" to go on."""
        if stream.stopped:
            return "stop_string"
        if len(self.tokens) >= self._ending.max_tokens:
            return "max_tokens"
        if self._prompt + len(self.tokens) >= self._reader.runtime.context_length:
            return "context"
        return "interrupted" if self.interrupted else ""

    def _clean(self, text: str) -> str:
        if text and self._trim:
            self._trim = False
            return text.removeprefix(" ")
        return text

"""Prompts into the engine's cache; what the cache already holds of one is not read again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from converters.errors import UnsupportedError
from edge.chat.prefix import PrefixCache, common
from edge.chat.prompt import PromptFormat
from edge.chat.speculation import Speculation
from edge.chat.templates import Message
from edge.runtimes.protocol import Runtime


class Reader:
    """`cached` are the tokens that the cache of `runtime` holds; nobody else may fill or rewind it."""

    def __init__(
        self,
        runtime: Runtime,
        prompt: PromptFormat,
        prefix: PrefixCache | None = None,
        speculation: Speculation | None = None,
    ) -> None:
        self.runtime = runtime
        self.cached: list[int] = []
        self._format = prompt
        self._prefix = prefix
        self._speculation = speculation

    def read(self, ids: list[int], system: Sequence[Message]) -> tuple[NDArray[np.float32], int]:
        """Logits after `ids`, and how many of them the cache already held (the common prefix).

        system: the messages that other conversations begin with too; with a prefix cache they are read by themselves.
        """
        if not ids:
            raise UnsupportedError("the prompt is empty", hint="say something")
        del self.cached[self.runtime.position :]
        read = self._restore(ids, system)
        same = min(common(ids, self.cached), len(ids) - 1)
        self.runtime.rewind(same)
        try:
            logits = self.runtime.append(ids[same:])
        finally:
            self.cached = ids[: self.runtime.position]
        if self._speculation:
            self._speculation.start(self.cached)
        return logits, same - read

    def append(self, token: int) -> NDArray[np.float32]:
        """Logits after one more token."""
        self.cached.append(token)
        try:
            if self._speculation:
                return self._speculation.append(self.cached)
            return self.runtime.append([token])
        finally:
            del self.cached[self.runtime.position :]

    def rewind(self, position: int) -> None:
        """Let the cache hold the first `position` tokens alone."""
        self.runtime.rewind(position)
        del self.cached[self.runtime.position :]

    def forget(self) -> None:
        """The engine's cache is empty, or of something else."""
        self.cached = []

    def _restore(self, ids: list[int], system: Sequence[Message]) -> int:
        """Have the prefix cache fill in what every conversation with this system message starts with.

        How many tokens were read for it.
        """
        if self._prefix is None:
            return 0
        questions: list[Message] = [{"role": "user", "content": text} for text in ("a", "0")]
        one, other = (self._format.ids([*system, question]) for question in questions)
        start = ids[: common(ids, one[: common(one, other)])]
        held = common(start, self.cached) == len(start)
        if held or not self._prefix.serves(self.runtime, start):
            return 0
        self.cached = start
        try:
            return self._prefix.fill(self.runtime, start)
        finally:
            del self.cached[self.runtime.position :]

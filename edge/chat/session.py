"""One conversation with one model: keeps the messages, fits them into the context, streams the answer."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from converters.errors import UnsupportedError
from edge.chat.answer import Answer
from edge.chat.attachments import Gallery, attachment
from edge.chat.decoding import Decoding, Ending
from edge.chat.prefix import PrefixCache
from edge.chat.prompt import PromptFormat
from edge.chat.reading import Reader
from edge.chat.sampling import Sampling
from edge.chat.speculation import Speculation
from edge.chat.templates import Message
from edge.runtimes.protocol import Adaptable, Runtime


@dataclass(frozen=True)
class Settings:
    """`seed` with the number of messages so far seeds each answer: the same conversation answers the same."""

    sampling: Sampling = field(default_factory=Sampling)
    seed: int = field(default_factory=lambda: secrets.randbits(31))
    max_tokens: int = 1024
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise UnsupportedError(f"max_tokens is {self.max_tokens}", hint="a value of 1 or more")
        if self.seed < 0:
            raise UnsupportedError(f"seed is {self.seed}", hint="a value of 0 or more")


class Session:
    """`ask` streams; `last` then tells the numbers. `note` is told, in one line, what a person should know."""

    def __init__(
        self,
        runtime: Runtime,
        *,
        settings: Settings | None = None,
        system: str | None = None,
        use_template: bool = True,
        note: Callable[[str], None] = lambda line: None,
        prefix: PrefixCache | None = None,
        speculation: Speculation | None = None,
        check_adapter: Callable[[str], None] = lambda name: None,
    ) -> None:
        dialect = runtime.dialect()
        self.runtime = runtime
        self.settings = settings or Settings()
        self._gallery = Gallery(runtime)
        self.format = PromptFormat(runtime, dialect, use_template=use_template, media=self._gallery.of)
        self.system = system
        self.messages: list[Message] = []
        self.last: Answer | None = None
        self._stop_ids = dialect.stop_ids
        self._note = note
        self._dropped = 0
        self._decoding: Decoding | None = None
        self._pending: list[dict[str, str]] = []
        self._reader = Reader(runtime, self.format, prefix, speculation)
        self._speculation = speculation
        self._check_adapter = check_adapter
        if self.format.plain:
            note("this model has no chat template: it goes on writing your text (plain completion)")

    def use_adapter(self, name: str | None) -> None:
        """Answer with adapter `name` (None: without) from now on; the conversation stays and is read anew.

        UnsupportedError when the engine has no such adapter, and what `check_adapter` raises.
        """
        if name is not None:
            self._check_adapter(name)
        if isinstance(self.runtime, Adaptable):
            self.runtime.use_adapter(name)
        elif name is not None:
            raise UnsupportedError(f"{self.runtime.name} switches no adapters", hint="leave --adapter away")
        self._reader.forget()

    def clear(self) -> None:
        """Forget the conversation and what was attached; system message and settings stay."""
        self._pending = []
        self.replace([])

    def replace(self, messages: Sequence[Message]) -> None:
        self.messages = list(messages)
        self._dropped = 0

    def interrupt(self) -> None:
        """Stop the running answer after the token in hand (safe from a signal handler)."""
        if self._decoding:
            self._decoding.interrupted = True

    @property
    def decoding(self) -> bool:
        """Whether an answer is being made, its prompt read."""
        return self._decoding is not None

    def attach(self, kind: str, path: Path) -> int:
        """Let the next question begin with an image or a recording; how many tokens it takes.

        MediaError for a damaged file, UnsupportedError where the model takes none of that kind.
        """
        named = attachment(kind, path)
        (medium,) = self._gallery.of({"media": [named]})
        self._pending.append(named)
        return len(medium.ids)

    def ask(self, text: str) -> Iterator[str]:
        """Stream the answer to `text`, with what was attached, and add both to the messages.

        An interrupted answer keeps what was said. On any error before the first token, and on a
        KeyboardInterrupt while the prompt is read, the question is taken back.
        """
        began = time.perf_counter()
        seed = [self.settings.seed, len(self.messages)]
        media, self._pending = self._pending, []
        question: dict[str, Any] = {"role": "user", "content": text}
        self.messages.append(question | ({"media": media} if media else {}))
        try:
            ids = self._fit()
            self._gallery.show(self._view())
            logits, cached = self._reader.read(ids, self._after_system([]))
        except BaseException:
            self.messages.pop()
            self._pending = media
            raise
        said: list[str] = []
        ending = Ending(
            self.settings.max_tokens, self.settings.stop, self._stop_ids, trim=not self.format.plain
        )
        random = np.random.default_rng(seed)
        decoding = Decoding(self._reader, logits, ending, self.settings.sampling, random)
        self._decoding = decoding
        try:
            for step in decoding:
                if step.text:
                    said.append(step.text)
                    yield step.text
        finally:  # also when the reader of this stream goes away
            self._decoding = None
            self.messages.append({"role": "assistant", "content": "".join(said)})
            answered = len(decoding.tokens)
            self.last = Answer(
                "".join(said), decoding.stop or "interrupted", len(ids), cached, answered,
                decoding.first - began, time.perf_counter() - decoding.first, len(ids) + answered,
                self.settings.seed, self._speculation.counts if self._speculation else None,
            )  # fmt: skip

    def _fit(self) -> list[int]:
        """Ids of the prompt, fitted into the context.

        The oldest questions go, with their answers and never the system message, until there is room for an
        answer of max_tokens or a quarter of the context, whichever is less.
        Raises UnsupportedError when the last question alone does not fit.
        """
        context = self.runtime.context_length
        room = min(self.settings.max_tokens, context // 4)
        before = self._dropped
        while True:
            ids = self.format.ids(self._view())
            later = [i for i in range(self._dropped + 1, len(self.messages)) if self._is_question(i)]
            if len(ids) + room <= context or not later:
                break
            self._dropped = later[0]
        if len(ids) >= context:
            self._dropped = before
            raise UnsupportedError(
                f"the message (with the system message) takes {len(ids)} tokens, the context holds {context}",
                hint="a shorter message, or --context N with a larger N",
            )
        if self._dropped > before:
            self._note(f"context full: the oldest {self._dropped - before} messages are no longer sent")
        return ids

    def _is_question(self, index: int) -> bool:
        return bool(self.messages[index]["role"] == "user")

    def _view(self) -> list[Message]:
        return self._after_system(self.messages[self._dropped :])

    def _after_system(self, messages: list[Message]) -> list[Message]:
        return [{"role": "system", "content": self.system}, *messages] if self.system else messages

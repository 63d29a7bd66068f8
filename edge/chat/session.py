"""One conversation with one model: keeps the messages, fits them into the context, streams the answer."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.errors import UnsupportedError
from edge.chat.answer import Answer
from edge.chat.attachments import Gallery, attachment
from edge.chat.prefix import PrefixCache, common
from edge.chat.prompt import PromptFormat
from edge.chat.sampling import Sampling, sample
from edge.chat.speculation import Speculation
from edge.chat.stream import TextStream
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
        self.decoding = False
        self._stop_ids = dialect.stop_ids
        self._note = note
        self._dropped = 0
        self._cached: list[int] = []
        self._interrupted = False
        self._pending: list[dict[str, str]] = []
        self._prefix = prefix
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
        self._cached = []

    def clear(self) -> None:
        """Forget the conversation and what was attached; system message and settings stay."""
        self._pending = []
        self.replace([])

    def replace(self, messages: Sequence[Message]) -> None:
        self.messages = list(messages)
        self._dropped = 0

    def interrupt(self) -> None:
        """Stop the running answer after the token in hand (safe from a signal handler)."""
        self._interrupted = True

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
            logits, cached = self._prefill(ids)
            if self._speculation:
                self._speculation.start(self._cached)
        except BaseException:
            self.messages.pop()
            self._pending = media
            raise
        said: list[str] = []
        tokens: list[int] = []
        first = began
        stop = ""
        stream = TextStream(self.settings.stop)
        random = np.random.default_rng(seed)
        self._interrupted, self.decoding = False, True
        try:
            while not stop:
                token = sample(logits, self.settings.sampling, self._cached, random)
                if not tokens:
                    first = time.perf_counter()
                tokens.append(token)
                if token in self._stop_ids:
                    stop = "stop_token"
                    break
                piece = stream.feed(self.runtime.token_bytes(token))
                stop = self._reason(stream, len(ids), len(tokens))
                if piece := self._clean(piece, first=not said):
                    said.append(piece)
                    yield piece
                if not stop:
                    logits = self._append(token)
            if piece := self._clean(stream.finish(), first=not said):
                said.append(piece)
                yield piece
        finally:  # also when the reader of this stream goes away
            self.decoding = False
            self.messages.append({"role": "assistant", "content": "".join(said)})
            self.last = Answer(
                "".join(said), stop or "interrupted", len(ids), cached, len(tokens), first - began,
                time.perf_counter() - first, len(ids) + len(tokens), self.settings.seed,
                self._speculation.counts if self._speculation else None,
            )  # fmt: skip

    def _reason(self, stream: TextStream, prompt: int, answered: int) -> str:
        """Why to stop before the next token; "" to go on."""
        if stream.stopped:
            return "stop_string"
        if answered >= self.settings.max_tokens:
            return "max_tokens"
        if prompt + answered >= self.runtime.context_length:
            return "context"
        return "interrupted" if self._interrupted else ""

    def _clean(self, piece: str, *, first: bool) -> str:
        """SentencePiece puts a space before a first word; a chat answer starts without it."""
        return piece.removeprefix(" ") if first and not self.format.plain else piece

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

    def _prefill(self, ids: list[int]) -> tuple[NDArray[np.float32], int]:
        """Logits after `ids`, and how many of them the cache already held (the common prefix)."""
        if not ids:
            raise UnsupportedError("the prompt is empty", hint="say something")
        self._gallery.show(self._view())
        del self._cached[self.runtime.position :]
        read = self._restore(ids)
        same = min(common(ids, self._cached), len(ids) - 1)
        self.runtime.rewind(same)
        try:
            return self.runtime.append(ids[same:]), same - read
        finally:
            self._cached = ids[: self.runtime.position]

    def _restore(self, ids: list[int]) -> int:
        """Have the prefix cache fill in what every conversation with this system message starts with.

        How many tokens were read for it.
        """
        if self._prefix is None:
            return 0
        questions: list[Message] = [{"role": "user", "content": text} for text in ("a", "0")]
        one, other = (self.format.ids(self._after_system([question])) for question in questions)
        start = ids[: common(ids, one[: common(one, other)])]
        held = common(start, self._cached) == len(start)
        if held or not self._prefix.serves(self.runtime, start):
            return 0
        self._cached = start
        try:
            return self._prefix.fill(self.runtime, start)
        finally:
            del self._cached[self.runtime.position :]

    def _append(self, token: int) -> NDArray[np.float32]:
        self._cached.append(token)
        try:
            if self._speculation:
                return self._speculation.append(self._cached)
            return self.runtime.append([token])
        finally:
            del self._cached[self.runtime.position :]

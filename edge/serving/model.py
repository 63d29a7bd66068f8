"""The model that is served: one engine, one cache, and the adapters that have names of their own."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.errors import EdgeError
from edge.chat.attachments import Gallery, attachment
from edge.chat.decoding import Constraint, Decoding, Ending
from edge.chat.locate import Chosen
from edge.chat.prefix import PrefixCache
from edge.chat.prompt import PromptFormat
from edge.chat.reading import Reader
from edge.chat.templates import Message
from edge.runtimes.protocol import Adaptable, Interruptible, Runtime
from edge.serving.errors import ApiError, as_api_error, check_characters, context_exceeded
from edge.serving.events import Event, Finished, Piece, Started
from edge.serving.grammar import Grammar, Vocabulary
from edge.serving.logprobs import score
from edge.serving.messages import Said
from edge.serving.requests import Question


class Served:
    """Only the engine's thread may call `answer`."""

    paths = ("/v1/chat/completions", "/v1/completions")
    dimensions = None

    def __init__(
        self, name: str, runtime: Runtime, chosen: Chosen, prefix: PrefixCache | None, created: int
    ) -> None:
        adapters = runtime.adapters if isinstance(runtime, Adaptable) else ()
        self.names = [name, *(f"{name}:{adapter}" for adapter in adapters)]
        """Of the model, and of the model with each of its adapters."""
        self.runtime = runtime
        self.engine = runtime.name
        self.context_length = runtime.context_length
        self.created = created
        self._chosen = chosen
        self._dialect = runtime.dialect()
        self._gallery = Gallery(runtime)
        self._format = PromptFormat(runtime, self._dialect, media=self._gallery.of)
        self._plain = PromptFormat(runtime, self._dialect, use_template=False)
        self._reader = Reader(runtime, self._format, prefix)
        self._vocabulary: Vocabulary | None = None
        self._checked: set[str] = set()

    def answer(self, question: Question, check: Callable[[], None]) -> Generator[Event]:
        """check: called now and then, to raise when nobody waits any more. Other errors are ApiErrors, but for bugs."""
        if isinstance(self.runtime, Interruptible):
            self.runtime.between = check
        try:
            yield from self._answer(question)
        except EdgeError as error:
            raise as_api_error(error) from error

    def _answer(self, question: Question) -> Iterator[Event]:
        self._use(question.model)
        constraint = self._constraint(question)
        with _messages(question.said) as messages:
            ids = self._ids(question, messages)
            self._gallery.show(messages)
            system = messages[:1] if messages and messages[0]["role"] == "system" else []
            logits, cached = self._reader.read(ids, system)
        yield Started(len(ids), cached)
        after_prompt = logits.copy()
        for index in range(question.n):
            if index:
                self._reader.rewind(len(ids))
                constraint = self._constraint(question)
            yield from self._one(question, index, after_prompt, constraint)

    def _one(
        self, question: Question, index: int, logits: NDArray[np.float32], constraint: Constraint | None
    ) -> Iterator[Event]:
        """Answer `index`, from the `logits` of the prompt, which the cache holds."""
        limit = question.max_tokens or self.runtime.context_length
        ending = Ending(
            limit, question.stop, self._dialect.stop_ids, trim=question.chat and not self._format.plain
        )
        # The first one as `edge chat` seeds the same conversation.
        before = sum(said.role != "system" for said in question.said[:-1])
        random = np.random.default_rng([question.seed, before] + [index] * bool(index))
        decoding = Decoding(self._reader, logits, ending, question.sampling, random, constraint)
        for step in decoding:
            scored = None
            if question.top_logprobs is not None and step.token is not None:
                scored = score(self.runtime, step.token, step.logits, question.top_logprobs)
            yield Piece(index, step.text, scored)
        yield Finished(index, decoding.stop, len(decoding.tokens))

    def close(self) -> None:
        self.runtime.close()

    def _use(self, name: str) -> None:
        adapter = name.removeprefix(self.names[0]).removeprefix(":") or None
        if not isinstance(self.runtime, Adaptable) or self.runtime.adapter == adapter:
            return
        if adapter is not None and adapter not in self._checked:
            self._chosen.check_adapter(adapter)
            self._checked.add(adapter)
        self.runtime.use_adapter(adapter)
        self._reader.forget()

    def _constraint(self, question: Question) -> Constraint | None:
        if question.shape is None:
            return None
        if self._vocabulary is None:
            self._vocabulary = Vocabulary(self.runtime)
        return Grammar(self._vocabulary, question.shape.grammar)

    def _ids(self, question: Question, messages: Sequence[Message]) -> list[int]:
        context = self.runtime.context_length
        param = "messages" if question.chat else "prompt"
        lengths = [len(said.text) for said in question.said] or [len(question.prompt)]
        check_characters(sum(lengths), context, "the prompt", param)
        if question.chat:
            ids = self._format.ids(messages)
        elif isinstance(question.prompt, str):
            ids = self._plain.ids([{"role": "user", "content": question.prompt}])
        else:
            ids = list(question.prompt)
            if not all(0 <= token < self.runtime.vocab_size for token in ids):
                raise ApiError(400, "prompt has ids that are no tokens of this model", param="prompt")
        if len(ids) >= context:
            but = f"the prompt takes {len(ids)} tokens, and an answer needs at least one"
            raise context_exceeded(context, but, param)
        return ids


@contextmanager
def _messages(said: Sequence[Said]) -> Iterator[list[Message]]:
    """As templates take them, with uploads in files for as long as the prompt is read."""
    with tempfile.TemporaryDirectory(prefix="edge-serve-") as directory:
        messages: list[Message] = []
        for i, each in enumerate(said):
            message: dict[str, Any] = {"role": each.role, "content": each.text}
            if each.uploads:
                message["media"] = []
            for n, upload in enumerate(each.uploads):
                file = Path(directory) / f"{upload.kind} {n + 1} of message {i + 1}"
                file.write_bytes(upload.data)
                message["media"].append(attachment(upload.kind, file))
            messages.append(message)
        yield messages

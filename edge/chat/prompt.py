"""From messages to the token ids that a model is given."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from edge.chat.templates import ChatTemplate, Message
from edge.runtimes.protocol import Dialect, Medium, Runtime

_OPEN, _CLOSE = "\ufdd0", "\ufdd1"
"""Noncharacters (Unicode 23.7): never part of a text that somebody means to send."""
_MARK = re.compile(f"{_OPEN}([0-9]+){_CLOSE}")


class PromptFormat:
    """Renders a conversation with the artifact's template, or as plain text when it has none.

    A special token's text inside a message (a pasted `<|end|>`) stays text: it can end no turn and open none.
    """

    def __init__(
        self,
        runtime: Runtime,
        dialect: Dialect,
        *,
        use_template: bool = True,
        media: Callable[[Message], Sequence[Medium]] = lambda message: (),
    ) -> None:
        """media: what a message begins with, before its text."""
        self._runtime = runtime
        self._media = media
        self._prefix = dialect.prefix
        self._template: ChatTemplate | None = None
        if dialect.template is not None and use_template:
            self._template = ChatTemplate(
                dialect.template, bos_token=dialect.bos_token, eos_token=dialect.eos_token
            )
        texts = sorted({*dialect.special_texts, _OPEN, _CLOSE}, key=len, reverse=True)
        self._special = re.compile("|".join(re.escape(text) for text in texts if text))

    @property
    def plain(self) -> bool:
        """True when there is no template: messages are joined by newlines and the model goes on writing."""
        return self._template is None

    def ids(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of the whole conversation, ready for the answer."""
        found: list[str | Medium] = []

        def mark(what: str | Medium) -> str:
            found.append(what)
            return f"{_OPEN}{len(found) - 1}{_CLOSE}"

        marked = [
            {
                **message,
                "content": "".join(mark(medium) + medium.after for medium in self._media(message))
                + self._special.sub(lambda match: mark(match[0]), message["content"]),
            }
            for message in messages
        ]
        text = (
            "\n".join(message["content"] for message in marked)
            if self._template is None
            else self._template.render(marked)
        )
        ids: list[int] = []
        for i, piece in enumerate(_MARK.split(text)):
            if i % 2:
                what = found[int(piece)]
                ids += self._runtime.encode(what, special=False) if isinstance(what, str) else what.ids
            elif piece:
                ids += self._runtime.encode(piece, special=self._template is not None)
        return self._with_prefix(ids)

    def _with_prefix(self, ids: list[int]) -> list[int]:
        starts = tuple(ids[: len(self._prefix)]) == self._prefix
        return ids if starts else [*self._prefix, *ids]

"""The answers to a request as OpenAI's clients read them: whole, and in pieces."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from edge.serving.choices import Choice
from edge.serving.events import Finished, Piece, Started
from edge.serving.requests import Question


@dataclass
class Reply:
    """Feed it every event after `started`. `answer_tokens`: of all answers so far."""

    question: Question
    started: Started
    answer_tokens: int = 0
    stops: list[str] = field(default_factory=list)
    _choices: list[Choice] = field(default_factory=list)
    _whole: list[dict[str, Any]] = field(default_factory=list)
    _id: str = ""
    _created: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        self._id = ("chatcmpl-" if self.question.chat else "cmpl-") + secrets.token_hex(12)
        self._choices = [Choice(self.question, index) for index in range(self.question.n)]

    @property
    def done(self) -> bool:
        return len(self.stops) == self.question.n

    def first(self) -> list[dict[str, Any]]:
        """What a stream begins with: every answer, told by its index."""
        return [self._chunk(piece) for choice in self._choices for piece in choice.first()]

    def take(self, event: Piece | Finished) -> list[dict[str, Any]]:
        """What a stream says by it."""
        choice = self._choices[event.index]
        if isinstance(event, Piece):
            return [self._chunk(piece) for piece in choice.take(event.text, event.scored)]
        self.answer_tokens += event.answer_tokens
        self.stops.append(event.stop)
        if not self.question.stream:
            self._whole.append(choice.whole(event))
            return []
        last = [self._chunk(piece) for piece in choice.last(event)]
        if self.done and self.question.stream_usage:
            last.append(self._body(".completion.chunk", []) | {"usage": self._usage()})
        return last

    def whole(self) -> dict[str, Any]:
        """Every answer, once all have ended."""
        return self._body(".completion", self._whole) | {"usage": self._usage()}

    def _chunk(self, choice: dict[str, Any]) -> dict[str, Any]:
        body = self._body(".completion.chunk", [choice])
        return body | ({"usage": None} if self.question.stream_usage else {})

    def _body(self, kind: str, choices: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": f"chat{kind}" if self.question.chat else "text_completion",
            "created": self._created,
            "model": self.question.model,
            "choices": choices,
        }

    def _usage(self) -> dict[str, Any]:
        """The prompt was read once, however many answers there are."""
        prompt = self.started.prompt_tokens
        return {
            "prompt_tokens": prompt,
            "completion_tokens": self.answer_tokens,
            "total_tokens": prompt + self.answer_tokens,
            "prompt_tokens_details": {"cached_tokens": self.started.cached_tokens},
        }

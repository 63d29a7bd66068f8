"""Answers as OpenAI's clients read them: whole, and in pieces."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from edge.serving.logprobs import Likely, Scored
from edge.serving.model import Finished, Started
from edge.serving.requests import Question
from edge.serving.tools import may_be_call, parse_call

_REASONS = {"stop_token": "stop", "stop_string": "stop"}
"""Everything else that ends an answer is "length"."""


@dataclass
class Reply:
    """One answer; `text` and `scored` grow while it is made."""

    question: Question
    started: Started
    text: str = ""
    scored: list[Scored] = field(default_factory=list)
    id: str = ""
    created: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        self.id = ("chatcmpl-" if self.question.chat else "cmpl-") + secrets.token_hex(12)

    @property
    def held(self) -> bool:
        """Whether nothing can be shown yet: what looks like a function call is told when it is whole."""
        shape = self.question.shape
        return shape is not None and shape.calls and (not self.text.strip(" ") or may_be_call(self.text))

    def whole(self, finished: Finished) -> dict[str, Any]:
        call, reason = self._end(finished)
        choice: dict[str, Any] = {
            "index": 0,
            "finish_reason": reason,
            "logprobs": self._logprobs(self.scored, 0),
        }
        if self.question.chat:
            message = {"role": "assistant", "content": None if call else self.text, "refusal": None}
            choice["message"] = message | ({"tool_calls": [call]} if call else {})
        else:
            choice["text"] = self.text
        return self._body(".completion", [choice]) | {"usage": self._usage(finished)}

    def first(self) -> dict[str, Any] | None:
        """What a streamed chat begins with."""
        return self._chunk({"role": "assistant", "content": ""}) if self.question.chat else None

    def piece(self, text: str, scored: Sequence[Scored]) -> dict[str, Any]:
        """`text` is already part of `self.text`."""
        return self._chunk(
            {"content": text} if self.question.chat else text,
            logprobs=self._logprobs(scored, len(self.text) - len(text)),
        )

    def last(self, finished: Finished) -> list[dict[str, Any]]:
        call, reason = self._end(finished)
        pieces = []
        if call:
            pieces.append(self._chunk({"tool_calls": [{"index": 0, **call}]}))
        elif self.held:
            pieces.append(self.piece(self.text, self.scored))
        pieces.append(self._chunk({} if self.question.chat else "", reason))
        if self.question.stream_usage:
            pieces.append(self._body(".completion.chunk", []) | {"usage": self._usage(finished)})
        return pieces

    def _end(self, finished: Finished) -> tuple[dict[str, Any] | None, str]:
        call = parse_call(self.text) if self.held else None
        return call, "tool_calls" if call else _REASONS.get(finished.stop, "length")

    def _chunk(self, delta: Any, reason: str | None = None, logprobs: Any = None) -> dict[str, Any]:
        name = "delta" if self.question.chat else "text"
        choice = {"index": 0, name: delta, "logprobs": logprobs, "finish_reason": reason}
        body = self._body(".completion.chunk", [choice])
        return body | ({"usage": None} if self.question.stream_usage else {})

    def _body(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": f"chat{kind}" if self.question.chat else "text_completion",
            "created": self.created,
            "model": self.question.model,
            "choices": choices,
        }

    def _usage(self, finished: Finished) -> dict[str, Any]:
        prompt, answer = self.started.prompt_tokens, finished.answer_tokens
        return {
            "prompt_tokens": prompt,
            "completion_tokens": answer,
            "total_tokens": prompt + answer,
            "prompt_tokens_details": {"cached_tokens": self.started.cached_tokens},
        }

    def _logprobs(self, scored: Sequence[Scored], at: int) -> dict[str, Any] | None:
        if self.question.top_logprobs is None:
            return None
        if self.question.chat:
            return {"content": [_entry(s.chosen) | {"top_logprobs": [*map(_entry, s.top)]} for s in scored]}
        # Of tokens with one text (bytes that are no UTF-8) the likeliest stands for all.
        offsets = []
        for each in scored:
            offsets.append(at)
            at += len(_text(each.chosen))
        return {
            "tokens": [_text(s.chosen) for s in scored],
            "token_logprobs": [s.chosen.logprob for s in scored],
            "top_logprobs": [{_text(t): t.logprob for t in reversed(s.top)} for s in scored],
            "text_offset": offsets,
        }


def _text(likely: Likely) -> str:
    return likely.data.decode("utf-8", "replace")


def _entry(likely: Likely) -> dict[str, Any]:
    return {"token": _text(likely), "logprob": likely.logprob, "bytes": list(likely.data)}

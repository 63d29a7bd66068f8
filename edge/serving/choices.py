"""One answer of a request: what it grows to, and its piece of a reply in OpenAI's words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from edge.serving.events import Finished
from edge.serving.logprobs import Likely, Scored
from edge.serving.requests import Question
from edge.serving.tools import may_be_call, parse_call

_REASONS = {"stop_token": "stop", "stop_string": "stop"}
"""Everything else that ends an answer is "length"."""


@dataclass
class Choice:
    """`text` and `scored` grow while it is made; `told` are those of `scored` that were streamed."""

    question: Question
    index: int
    text: str = ""
    scored: list[Scored] = field(default_factory=list)
    told: int = 0

    @property
    def held(self) -> bool:
        """Whether nothing can be shown yet: what looks like a function call is told when it is whole."""
        shape = self.question.shape
        return shape is not None and shape.calls and (not self.text.strip(" ") or may_be_call(self.text))

    def whole(self, finished: Finished) -> dict[str, Any]:
        call, reason = self._end(finished)
        choice: dict[str, Any] = {
            "index": self.index,
            "finish_reason": reason,
            "logprobs": self._logprobs(self.scored, 0),
        }
        if not self.question.chat:
            return choice | {"text": self.text}
        message = {"role": "assistant", "content": None if call else self.text, "refusal": None}
        return choice | {"message": message | ({"tool_calls": [call]} if call else {})}

    def first(self) -> list[dict[str, Any]]:
        """What a streamed chat begins with."""
        return [self._chunk({"role": "assistant", "content": ""})] if self.question.chat else []

    def take(self, text: str, scored: Scored | None) -> list[dict[str, Any]]:
        """The next piece, and what can be streamed by it."""
        before = "" if not self.held else self.text
        self.text += text
        if scored:
            self.scored.append(scored)
        return [self._piece(before + text)] if text and not self.held else []

    def last(self, finished: Finished) -> list[dict[str, Any]]:
        """What a streamed answer ends with."""
        call, reason = self._end(finished)
        pieces = []
        if call:
            pieces.append(self._chunk({"tool_calls": [{"index": 0, **call}]}))
        elif self.held:
            pieces.append(self._piece(self.text))
        elif self.told < len(self.scored):
            pieces.append(self._piece(""))
        return [*pieces, self._chunk({} if self.question.chat else "", reason)]

    def _piece(self, text: str) -> dict[str, Any]:
        """`text` is already part of `self.text`."""
        scored, self.told = self.scored[self.told :], len(self.scored)
        logprobs = self._logprobs(scored, len(self.text) - len(text))
        return self._chunk({"content": text} if self.question.chat else text, logprobs=logprobs)

    def _end(self, finished: Finished) -> tuple[dict[str, Any] | None, str]:
        call = parse_call(self.text) if self.held else None
        return call, "tool_calls" if call else _REASONS.get(finished.stop, "length")

    def _chunk(self, delta: Any, reason: str | None = None, logprobs: Any = None) -> dict[str, Any]:
        name = "delta" if self.question.chat else "text"
        return {"index": self.index, name: delta, "logprobs": logprobs, "finish_reason": reason}

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

"""What one question cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edge.chat.speculation import Counts


@dataclass(frozen=True)
class Answer:
    """What one question cost. Times in seconds; `stop` is why the answer ended.

    cached_tokens: of the prompt's tokens, those that the KV cache already held.
    stop: "stop_token", "stop_string", "max_tokens", "context" (full) or "interrupted".
    speculation: what guessing did, None where none was asked for.
    """

    text: str
    stop: str
    prompt_tokens: int
    cached_tokens: int
    answer_tokens: int
    first_token_s: float
    decode_s: float
    context_used: int
    seed: int
    speculation: Counts | None = None

    @property
    def prompt_tokens_per_s(self) -> float:
        return (self.prompt_tokens - self.cached_tokens) / max(self.first_token_s, 1e-9)

    @property
    def answer_tokens_per_s(self) -> float:
        """Speed of the tokens after the first one."""
        return (self.answer_tokens - 1) / self.decode_s if self.answer_tokens > 1 else 0.0

    def to_data(self) -> dict[str, Any]:
        """For `--json`: everything but the text."""
        data: dict[str, Any] = {
            "stop": self.stop,
            "seed": self.seed,
            "prompt_tokens": self.prompt_tokens,
            "cached_tokens": self.cached_tokens,
            "answer_tokens": self.answer_tokens,
            "first_token_s": round(self.first_token_s, 6),
            "prompt_tokens_per_s": round(self.prompt_tokens_per_s, 3),
            "answer_tokens_per_s": round(self.answer_tokens_per_s, 3),
            "context_used": self.context_used,
        }
        if self.speculation:
            data["speculation"] = self.speculation.to_data()
        return data

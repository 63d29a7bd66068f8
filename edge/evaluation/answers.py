"""What a loaded model answers to a task's item: the likeliest choice, or a few words of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.errors import UnsupportedError
from edge.chat.prompt import PromptFormat
from edge.runtimes import Runtime

MAX_TOKENS = 32
"""Longest free answer."""


class Answerer:
    """One prompt after another in one KV cache: what a prompt shares with the one before is not run again."""

    def __init__(self, runtime: Runtime) -> None:
        dialect = runtime.dialect()
        self._runtime = runtime
        self._chat = PromptFormat(runtime, dialect)
        self._plain = PromptFormat(runtime, dialect, use_template=False)
        self._stop_ids = dialect.stop_ids
        self._cached: list[int] = []

    def answer(self, item: dict[str, Any]) -> dict[str, Any]:
        """{"scores": [per choice]} to {"prompt", "choices"}, else {"text": ...} to {"prompt", "plain"}.

        A choice's score is the mean log-likelihood (nats) of its tokens after the prompt. The text is the greedy
        answer: to a stop token, MAX_TOKENS, or, of a plain prompt, the end of its first line. A prompt is plain when
        the item says so or the model has no chat template: then it is the text itself, before choices with a line
        "Answer:" after it.
        """
        form = self._plain if item.get("plain") else self._chat
        prompt, space = item["prompt"], ""
        if "choices" in item and form.plain:
            prompt, space = f"{prompt}\nAnswer:", " "
        ids = form.ids([{"role": "user", "content": prompt}])
        if "choices" not in item:
            return {"text": self._generate(ids, one_line=form.plain)}
        choices = [self._runtime.encode(space + choice, special=False) for choice in item["choices"]]
        after = self._logits(ids)
        return {"scores": [self._likelihood(ids, after, choice) for choice in choices]}

    def _likelihood(self, prompt: list[int], logits: NDArray[np.float32], choice: Sequence[int]) -> float:
        """Of `choice` after `prompt`, which ends in `logits`."""
        total = 0.0
        for i, token in enumerate(choice):
            total += _log_probability(logits, token)
            if i + 1 < len(choice):
                logits = self._logits([*prompt, *choice[: i + 1]])
        return total / max(len(choice), 1)

    def _generate(self, prompt: list[int], *, one_line: bool) -> str:
        ids, said = list(prompt), b""
        for _ in range(MAX_TOKENS):
            token = int(np.argmax(self._logits(ids)))
            if token in self._stop_ids:
                break
            said += self._runtime.token_bytes(token)
            ids.append(token)
            if one_line and b"\n" in said.lstrip():
                break
        return said.decode("utf-8", "replace").strip()

    def _logits(self, ids: list[int]) -> NDArray[np.float32]:
        """Logits after `ids`. The last token always runs: the cache keeps no logits."""
        same = 0
        limit = min(len(ids) - 1, len(self._cached))
        while same < limit and ids[same] == self._cached[same]:
            same += 1
        self._runtime.rewind(same)
        logits = self._runtime.append(ids[same:])
        self._cached = list(ids)
        if not np.isfinite(logits).all():
            raise UnsupportedError(
                f"{self._runtime.name}: logits that are no numbers after {len(ids)} tokens of a task's prompt",
                hint="edge verify BUNDLE; convert it again",
            )
        return logits


def _log_probability(logits: NDArray[np.float32], token: int) -> float:
    values = logits.astype(np.float64)
    values -= values.max()
    return float(values[token] - np.log(np.exp(values).sum()))

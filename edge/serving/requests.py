"""What a client asks for, read from the JSON of its request. Every reader raises ApiError."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from edge.chat.sampling import Sampling
from edge.serving.fields import Fields
from edge.serving.messages import Said, read_messages, with_system
from edge.serving.tools import Shape, read_shape

_LONGEST = 1 << 31
_STOPS = 4
_ANSWERS = 16
"""To one request; they are made one after the other, and others wait."""
_CHANGE_NOTHING = [
    "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "parallel_tool_calls",
]  # fmt: skip


@dataclass(frozen=True)
class Question:
    """said: of a chat. prompt: a text to go on with, or token ids; one of the two.

    n: answers. max_tokens: of each, None for as many as the context holds. top_logprobs: None for no logprobs, else how
    many besides the token's own. shape: None for any text.
    """

    model: str
    said: tuple[Said, ...]
    prompt: str | tuple[int, ...]
    sampling: Sampling
    seed: int
    n: int
    max_tokens: int | None
    stop: tuple[str, ...]
    stream: bool
    stream_usage: bool
    top_logprobs: int | None
    shape: Shape | None = None

    @property
    def chat(self) -> bool:
        return bool(self.said)


def read_chat(data: object) -> Question:
    """Of a body of /v1/chat/completions."""
    fields = Fields(data)
    said = read_messages(fields.items("messages"))
    shape = read_shape(fields)
    if shape and shape.instruction:
        said = with_system(said, shape.instruction)
    top = fields.integer("top_logprobs", 0, 20)
    if not fields.flag("logprobs"):
        if top is not None:
            raise fields.wrong("top_logprobs", "needs logprobs")
    elif top is None:
        top = 0
    older = fields.integer("max_tokens", 1, _LONGEST)
    newer = fields.integer("max_completion_tokens", 1, _LONGEST)
    fields.only("modalities", ["text"])
    return _question(fields, tuple(said), "", newer or older, top, shape)


def read_completion(data: object) -> Question:
    """Of a body of /v1/completions."""
    fields = Fields(data)
    prompt = fields.take("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
        prompt = prompt[0]
    if isinstance(prompt, list) and all(isinstance(i, int) and not isinstance(i, bool) for i in prompt):
        prompt = tuple(prompt)
    if not isinstance(prompt, str | tuple) or not prompt:
        raise fields.wrong("prompt", "is neither one text nor one list of token ids")
    top = fields.integer("logprobs", 0, 5)
    fields.only("echo", False)
    fields.only("suffix", "")
    return _question(fields, (), prompt, fields.integer("max_tokens", 1, _LONGEST) or 16, top, None)


def _question(
    fields: Fields,
    said: tuple[Said, ...],
    prompt: str | tuple[int, ...],
    max_tokens: int | None,
    top_logprobs: int | None,
    shape: Shape | None,
) -> Question:
    n = fields.integer("n", 1, _ANSWERS) or 1
    best_of = fields.integer("best_of", 1, _LONGEST)
    if best_of not in (None, n):
        raise fields.wrong("best_of", f"is not n ({n}): this server tells every answer that it makes")
    for name in ("frequency_penalty", "presence_penalty"):
        fields.only(name, 0)
    fields.only("logit_bias", {})
    stream = fields.flag("stream")
    options = fields.take("stream_options")
    usage = False
    if options is not None:
        inner = Fields(options, "stream_options")
        usage = inner.flag("include_usage")
        inner.finish(["include_obfuscation"])
        if not stream:
            raise fields.wrong("stream_options", "needs stream")
    seed = fields.integer("seed", -(1 << 63), (1 << 63) - 1)
    question = Question(
        fields.needed("model"),
        said,
        prompt,
        _sampling(fields),
        secrets.randbits(31) if seed is None else seed % (1 << 64),
        n,
        max_tokens,
        fields.texts("stop", _STOPS),
        stream,
        usage,
        top_logprobs,
        shape,
    )
    fields.finish(_CHANGE_NOTHING)
    return question


def _sampling(fields: Fields) -> Sampling:
    """OpenAI's defaults; top_k, min_p and repeat_penalty are named as `edge chat` names them."""
    temperature = fields.number("temperature", 0, 2)
    top_p = fields.number("top_p", 0, 1)
    return Sampling(
        1.0 if temperature is None else temperature,
        fields.integer("top_k", 0, _LONGEST) or 0,
        1.0 if top_p is None else max(top_p, 1e-6),
        fields.number("min_p", 0, 1) or 0.0,
        fields.number("repeat_penalty", 0.01, 100) or 1.0,
    )

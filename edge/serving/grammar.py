"""Answers of a given shape, by llguidance (https://github.com/guidance-ai/llguidance): the same on every engine.

onnxruntime-genai's guidance is this library inside its own sampler, and llama.cpp has a grammar of another dialect in
its own; here sampling is ours (edge.chat.sampling), so one library masks the logits of both.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper
from numpy.typing import NDArray

from edge.runtimes.protocol import Runtime
from edge.serving.errors import ApiError


class Vocabulary:
    """What llguidance must know of a model's tokens; takes a second for 200,000 of them."""

    def __init__(self, runtime: Runtime) -> None:
        stops = sorted(runtime.dialect().stop_ids)
        self.size = runtime.vocab_size

        class Encoder(SimpleNamespace):
            def __call__(self, text: bytes | str) -> list[int]:
                plain = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
                return runtime.encode(plain, special=False)

        encoder = Encoder(
            eos_token_id=stops[0],
            bos_token_id=None,
            tokens=[runtime.token_bytes(i) for i in range(self.size)],
            special_token_ids=stops,
        )
        self.tokens = LLTokenizer(TokenizerWrapper(encoder), n_vocab=self.size, eos_token=stops)


class Grammar:
    """See `edge.chat.decoding.Constraint`. Raises ApiError for a grammar that llguidance does not take."""

    def __init__(self, vocabulary: Vocabulary, lark: str) -> None:
        self._size = vocabulary.size
        self._matcher = LLMatcher(vocabulary.tokens, LLMatcher.grammar_from_lark(lark), log_level=0)
        self._check()

    def allowed(self) -> NDArray[np.bool_]:
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        self._check()
        return np.unpackbits(bits, count=self._size, bitorder="little").view(np.bool_)

    def take(self, token: int) -> None:
        self._matcher.consume_token(token)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            cause = self._matcher.get_error().splitlines()[0].rpartition("JSON schema: ")[2]
            raise ApiError(400, f"the schema cannot be used: {cause}", code="invalid_schema")

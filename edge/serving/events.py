"""What the engine's thread tells of the work on a request, as it goes on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.serving.logprobs import Scored


@dataclass(frozen=True)
class Started:
    """The prompt is read; `cached_tokens` of it were in the cache."""

    prompt_tokens: int
    cached_tokens: int


@dataclass(frozen=True)
class Piece:
    """Text of answer `index` that is certain, maybe "", and the token that made it so where logprobs are asked for."""

    index: int
    text: str
    scored: Scored | None


@dataclass(frozen=True)
class Finished:
    """Answer `index` has ended. stop: see `edge.chat.answer.Answer`."""

    index: int
    stop: str
    answer_tokens: int


@dataclass(frozen=True)
class Embedded:
    """The vector of the next text, float32 [width], and how many tokens the text has."""

    vector: NDArray[np.float32]
    tokens: int


Event = Started | Piece | Finished | Embedded

"""What a client asks of /v1/embeddings, read from the JSON of its request, and the answer's JSON."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edge.serving.events import Embedded
from edge.serving.fields import Fields

_MOST = 2048
"""Inputs of one request, as many as OpenAI takes."""


@dataclass(frozen=True)
class Texts:
    """inputs: each a text, or the token ids of one. base64: whether vectors are wanted as base64 of float32, least
    byte first. dimensions: None for all that there are."""

    model: str
    inputs: tuple[str | tuple[int, ...], ...]
    base64: bool
    dimensions: int | None


def read_texts(data: object) -> Texts:
    """Of a body of /v1/embeddings. Raises ApiError."""
    fields = Fields(data)
    found = fields.take("input")
    alone = isinstance(found, str) or (isinstance(found, list) and found and all(map(_is_id, found)))
    inputs = [found] if alone else found
    if not isinstance(inputs, list) or not 1 <= len(inputs) <= _MOST:
        raise fields.wrong(
            "input", f"is neither a text nor a list of 1 to {_MOST} texts or lists of token ids"
        )
    for i, each in enumerate(inputs):
        if not isinstance(each, str) and not (isinstance(each, list) and all(map(_is_id, each))):
            raise fields.wrong(f"input[{i}]", "is neither a text nor a list of token ids")
        if not each:
            raise fields.wrong(f"input[{i}]", "is empty")
    form = fields.text("encoding_format") or "float"
    if form not in ("float", "base64"):
        raise fields.wrong("encoding_format", f"is '{form}', neither float nor base64")
    asked = Texts(
        fields.needed("model"),
        tuple(each if isinstance(each, str) else tuple(each) for each in inputs),
        form == "base64",
        fields.integer("dimensions", 1, 1 << 31),
    )
    fields.finish(["user"])
    return asked


def tell_vectors(asked: Texts, found: Sequence[Embedded]) -> dict[str, Any]:
    tokens = sum(each.tokens for each in found)
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": i, "embedding": _vector(each, asked.base64)}
            for i, each in enumerate(found)
        ],
        "model": asked.model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _vector(found: Embedded, as_base64: bool) -> Any:
    if as_base64:
        return base64.b64encode(found.vector.astype("<f4").tobytes()).decode("ascii")
    return found.vector.tolist()


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)

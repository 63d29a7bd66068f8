"""What the browser must know of a vocabulary to write a prompt as `edge chat` does.

wllama takes a prompt as text only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from converters.errors import CheckpointError
from converters.gguf import strip
from converters.gguf.long_words import LONGEST, runs_in_regex
from converters.gguf.reader import Gguf

_CONTROL = 3
"""`tokenizer.ggml.token_type` of a token that only the template may write."""
_ANY_LENGTH = 1 << 30


def describe(gguf: Path) -> dict[str, Any]:
    """More keys of model.json:

    special: texts of control tokens. bos: the text of the token that the engine puts before a prompt, "" for none.
    strip: [text, left, right] of tokens that swallow white space. longest_run: characters without a break.
    Raises CheckpointError for a damaged file.
    """
    with Gguf.open(gguf) as file:
        keys = file.metadata
    tokens, types = keys.get("tokenizer.ggml.tokens", []), keys.get("tokenizer.ggml.token_type", [])
    kind, pre = str(keys.get("tokenizer.ggml.model", "")), str(keys.get("tokenizer.ggml.pre", ""))
    bos = keys.get("tokenizer.ggml.bos_token_id")
    # llama.cpp's own default: SentencePiece vocabularies begin with it.
    begins = keys.get("tokenizer.ggml.add_bos_token", kind == "llama")
    try:
        rules = strip.from_text(str(keys.get(strip.KEY, "[]")))
    except ValueError as error:
        raise CheckpointError(f"{gguf}: {error}", hint=f"edge inspect {gguf}") from None
    return {
        "special": sorted({t for t, number in zip(tokens, types, strict=False) if number == _CONTROL and t}),
        "bos": tokens[bos] if begins and type(bos) is int and bos < len(tokens) else "",
        "strip": [[rule.text, rule.left, rule.right] for rule in rules],
        "longest_run": LONGEST if runs_in_regex(kind, pre) else _ANY_LENGTH,
    }

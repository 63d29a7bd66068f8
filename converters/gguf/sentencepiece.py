"""Llama-style SentencePiece BPE: merge ranks as piece scores.

A tokenizer.json lists merges in order; llama.cpp joins any two neighbours whose union is a piece, best score
first (src/llama-vocab.cpp, `llm_tokenizer_spm`). Both do the same when every way to split a piece into two
pieces is a merge and the merges of one piece stand together. That is so in every tokenizer.json made from a
SentencePiece model; where it is not, the difference is refused and not approximated.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from typing import Any

from converters.errors import UnsupportedError

BYTE = re.compile(r"<0x[0-9A-F]{2}>")
UNMERGED_SCORE = -1e6
"""For pieces that no merge makes (characters, bytes, controls); llama.cpp never compares it."""
SPACE = "▁"


def scores(tokens: Set[str], merges: Sequence[tuple[str, str]]) -> dict[str, float]:
    """Piece -> score, 0 for the first to be merged, then -1, -2, ...; pieces that no merge makes are left out.

    `tokens` are all texts that llama.cpp might join to, added tokens included.
    """
    order: dict[str, float] = {}
    last = None
    for left, right in merges:
        piece = left + right
        if piece != last and piece in order:
            raise refuse(f"the merges of {piece!r} do not stand together")
        order.setdefault(piece, float(-len(order)))
        last = piece
    known = set(merges)
    for piece in sorted(tokens):
        for i in range(1, len(piece)):
            pair = (piece[:i], piece[i:])
            if pair not in known and pair[0] in tokens and pair[1] in tokens:
                raise refuse(f"{pair[0]!r} and {pair[1]!r} make the piece {piece!r}, but are no merge")
    return order


def adds_space(normalizer: dict[str, Any] | None, pre_tokenizer: dict[str, Any] | None) -> bool:
    """Whether a space is put before each stretch of text. Refuses any other normalization.

    llama.cpp turns spaces into ▁ and, if asked, puts one ▁ before the text and after every special token: that
    is `Prepend` then `Replace`. The Metaspace pre-tokenizer is another rule (only at the very start, or only
    where there is none yet) unless it never prepends.
    """
    stages = [] if normalizer is None else normalizer.get("normalizers", [normalizer])
    kinds = [stage.get("type") for stage in stages]
    replaces = [s for s in stages if s.get("type") == "Replace"]
    spaces = all(s.get("pattern") == {"String": " "} and s.get("content") == SPACE for s in replaces)
    if pre_tokenizer is None and spaces and kinds in (["Prepend", "Replace"], ["Replace"]):
        if kinds[0] == "Prepend" and stages[0].get("prepend") != SPACE:
            raise refuse(f"the normalizer prepends {stages[0].get('prepend')!r}")
        return bool(kinds[0] == "Prepend")
    if not stages and pre_tokenizer is not None and pre_tokenizer.get("type") == "Metaspace":
        plain = pre_tokenizer.get("replacement") == SPACE and pre_tokenizer.get("split") is False
        if plain and pre_tokenizer.get("prepend_scheme") == "never":
            return False
    pre = pre_tokenizer.get("type") if pre_tokenizer else None
    raise refuse(f"normalizer {' + '.join(map(str, kinds)) or None} with pre-tokenizer {pre}")


def check_bytes(vocab: Mapping[str, int]) -> None:
    """Every byte needs its token: llama.cpp stops the whole process where one is missing."""
    for byte in range(256):
        if f"<0x{byte:02X}>" not in vocab:
            raise refuse(f"no token <0x{byte:02X}>")


def refuse(what: str) -> UnsupportedError:
    return UnsupportedError(
        f"tokenizer.json: {what}; llama.cpp would give other token ids",
        hint="convert to ONNX instead: --target cpu",
    )

"""White space that a special token swallows, which a GGUF cannot say.

In a tokenizer.json an added token may have `lstrip` or `rstrip` (Phi-3: `<|user|>` and its like swallow what
follows; Phi-4: `<|im_start|>` both sides). llama.cpp knows that for one set of tokens of one model, found by
its *name* (src/llama-vocab.cpp: a general.name with "phi-3"): the writer uses that where it fits, and in any
case keeps the rule under a key of its own, which `edge.runtimes` applies before it tokenizes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from converters.gguf.tokenizer import AddedToken

KEY = "edge.tokenizer.strip"
"""A string, because llama.cpp's metadata calls give no arrays: JSON, [[text, special, left, right], ...]."""

# Unicode White_Space, what `tokenizers` strips; Python's \s takes U+001C..U+001F as well.
_SPACE = r"[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]"


@dataclass(frozen=True)
class StripRule:
    text: str
    special: bool
    left: bool
    right: bool


def rules(added: Iterable[AddedToken]) -> tuple[StripRule, ...]:
    return tuple(StripRule(t.content, t.special, t.lstrip, t.rstrip) for t in added if t.lstrip or t.rstrip)


def to_text(rules: Iterable[StripRule]) -> str:
    return json.dumps([[r.text, r.special, r.left, r.right] for r in rules], ensure_ascii=False)


def from_text(text: str) -> tuple[StripRule, ...]:
    """ValueError when `text` is not what `to_text` writes."""
    data = json.loads(text)
    if not isinstance(data, list) or not all(isinstance(r, list) and len(r) == 4 for r in data):
        raise ValueError(f"{KEY} is no list of rules")
    return tuple(StripRule(str(r[0]), *(bool(flag) for flag in r[1:])) for r in data)


def apply(text: str, rules: Iterable[StripRule], *, special: bool) -> str:
    """`text` without the white space that its added tokens swallow; special ones only when they are parsed."""
    active = [r for r in rules if special or not r.special]
    if right := _any_of(r.text for r in active if r.right):
        text = re.sub(f"({right}){_SPACE}+", r"\1", text)
    if left := _any_of(r.text for r in active if r.left):
        # The lookbehind lets a search start only where a run starts: a long run costs linear time.
        text = re.sub(f"(?<!{_SPACE}){_SPACE}+({left})", r"\1", text)
    return text


def _any_of(texts: Iterable[str]) -> str:
    """An expression for any of them, the longest first where one starts another."""
    return "|".join(re.escape(text) for text in sorted(texts, key=len, reverse=True))

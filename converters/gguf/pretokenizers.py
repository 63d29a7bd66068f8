"""Names that llama.cpp gives to pre-tokenizers, by what they do in a tokenizer.json.

llama.cpp knows no expressions, only names (`tokenizer.ggml.pre`), each of which stands for hand-written code
(src/llama-vocab.cpp, `llm_tokenizer_bpe`). A name that is nearly right gives nearly right token ids, silently:
what is not listed here is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from converters.errors import UnsupportedError

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_O200K_TAIL = r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CL100K = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_TAIL}"
_O200K = "|".join(
    (
        rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_CONTRACTIONS}?",
        rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_CONTRACTIONS}?",
        _O200K_TAIL,
    )
)
_DIGIT = r"\p{N}"


@dataclass(frozen=True)
class Pre:
    """A name, and whether the engine takes a whole word that is a token before it looks at any merge."""

    name: str
    whole_words: bool


# Expressions in order -> names. For o200k (Phi-4-mini) llama.cpp's "gpt-4o" is not the same: it does not count
# combining marks as letters, and gives other ids for Hindi, Thai and decomposed accents. The name used here does;
# what is left: it does not know the case of letters outside ASCII (" ÜBER" is cut after the "Ü").
_NAMES: dict[tuple[str, ...], tuple[Pre, ...]] = {
    (_GPT2,): (Pre("gpt-2", False),),
    (_DIGIT, _GPT2): (Pre("smollm", False),),
    (_CL100K,): (Pre("dbrx", False), Pre("llama-bpe", True)),
    (_CL100K.replace("{1,3}", ""),): (Pre("qwen2", False),),
    (_O200K,): (Pre("granite-embed-multi-97m", True),),
}
# The same language in an older spelling of tiktoken: its possessive quantifiers change no match. (The newest one
# is another language to the regex engine of `tokenizers`, where {1,3}+ repeats: it is not here.)
_SPELLINGS = {
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+": _CL100K
}


def find(pre_tokenizer: dict[str, Any] | None, *, whole_words: bool) -> Pre:
    """llama.cpp's name; of two, the one that treats whole words so. UnsupportedError when it has none."""
    expressions = tuple(_expressions(pre_tokenizer))
    found = _NAMES.get(tuple(_SPELLINGS.get(e, e) for e in expressions))
    if found is None:
        raise _refuse(f"the pre-tokenizer {' then '.join(expressions)!r}")
    return next((pre for pre in found if pre.whole_words == whole_words), found[0])


def _expressions(stage: dict[str, Any] | None) -> list[str]:
    """What the stages split by, in order; the last one must be ByteLevel."""
    stages = stage.get("pretokenizers", []) if stage and stage.get("type") == "Sequence" else [stage]
    out: list[str] = []
    for i, one in enumerate(stages):
        last, kind = i == len(stages) - 1, one.get("type") if isinstance(one, dict) else None
        if last != (kind == "ByteLevel"):
            raise _refuse(f"a pre-tokenizer of {kind}")
        if kind == "ByteLevel":
            if one.get("add_prefix_space", True):
                raise _refuse("ByteLevel with add_prefix_space")
            if one.get("use_regex", True):
                out.append(_GPT2)
        elif kind == "Digits" and one.get("individual_digits"):
            out.append(_DIGIT)
        elif kind == "Split":
            out.append(_split(one))
        else:
            raise _refuse(f"a pre-tokenizer of {kind}")
    return out


def _split(stage: dict[str, Any]) -> str:
    """The expression of a Split that leaves every match a piece of its own.

    "Removed" with `invert` drops what lies between the matches: nothing, for expressions that match everything.
    """
    how = (stage.get("behavior"), bool(stage.get("invert")))
    expression = (stage.get("pattern") or {}).get("Regex")
    if how not in {("Isolated", False), ("Removed", True)} or not isinstance(expression, str):
        raise _refuse(f"a Split of behavior {how[0]}, invert={how[1]}")
    return expression


def _refuse(what: str) -> UnsupportedError:
    return UnsupportedError(
        f"tokenizer.json has {what}: llama.cpp has no name for it, token ids would differ",
        hint="convert to ONNX instead: --target cpu",
    )

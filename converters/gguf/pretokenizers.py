"""Names that llama.cpp gives to pre-tokenizers, by what they do in a tokenizer.json.

llama.cpp knows no expressions, only names (`tokenizer.ggml.pre`), each of which stands for hand-written code
(src/llama-vocab.cpp, `llm_tokenizer_bpe`). A name that is nearly right gives nearly right token ids, silently:
what is not listed here is refused.
"""

from __future__ import annotations

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

# (expressions in order, whole words of the vocabulary taken before any merge) -> name
_NAMES: dict[tuple[tuple[str, ...], bool], str] = {
    ((_GPT2,), False): "gpt-2",
    ((_DIGIT, _GPT2), False): "smollm",
    ((_CL100K,), False): "dbrx",
    ((_CL100K,), True): "llama-bpe",
    ((_CL100K.replace("{1,3}", ""),), False): "qwen2",
    ((_O200K,), False): "gpt-4o",
}
# The same language in the spellings of tiktoken: their possessive quantifiers change no match here.
_SPELLINGS = dict.fromkeys(
    (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}|"
        r" ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+|"
        r" ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
    ),
    _CL100K,
)


def name_of(pre_tokenizer: dict[str, Any] | None, *, ignore_merges: bool) -> str:
    """llama.cpp's name. UnsupportedError, with the expression, when it has none."""
    expressions = tuple(_expressions(pre_tokenizer))
    found = _NAMES.get((tuple(_SPELLINGS.get(e, e) for e in expressions), ignore_merges))
    if found is None:
        raise _refuse(f"the pre-tokenizer {' then '.join(expressions)!r}, ignore_merges={ignore_merges}")
    return found


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

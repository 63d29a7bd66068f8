"""Small working tokenizers for random checkpoints, in the layouts that the Phi models ship.

Each has every byte, some merges learnt from a few lines below, the Phi special tokens and a chat template, so
that tokenizer conversion, stop tokens and chat are exercised for real without any model's vocabulary.
"""

from __future__ import annotations

import base64
import json
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

Kind = Literal["bpe", "bpe-cl100k", "bpe-multimodal", "spm", "tiktoken"]

# Pre-tokenizer patterns are facts of the formats: o200k (Phi-4-mini) and cl100k (Phi-4), as in tiktoken.
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_SUFFIX = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_PATTERNS = {
    "bpe": rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_SUFFIX}?|"
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_SUFFIX}?|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "bpe-cl100k": rf"{_SUFFIX}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}
_PATTERNS["bpe-multimodal"] = _PATTERNS["bpe"]
_TEXT = """A checkpoint is a stream of tensors. The converter reads each tensor once, makes it smaller, and
writes it down; what it wrote is then asked the same questions as what it read, and the answers are compared.
def scale(values, step=32):
    return [max(abs(v) for v in values[i : i + step]) for i in range(0, len(values), step)]
The capital of France is Paris. Das Wetter ist schön; où est la gare?
東京は日本の首都です。 今天天气很好。 Привет, мир! 🙂🚀
I don't know, you're right, it's 2048 or 4096 tokens, and that's where the rotary factors switch over.
"""
MERGES = 120
_PHI3_SPECIAL = [
    "<|endoftext|>", "<|assistant|>", "<|placeholder1|>", "<|placeholder2|>", "<|placeholder3|>",
    "<|placeholder4|>", "<|system|>", "<|end|>", "<|placeholder5|>", "<|placeholder6|>", "<|user|>",
]  # fmt: skip
_PHI4_SPECIAL = [
    "<|endoftext|>", "<|im_start|>", "<|im_sep|>", "<|im_end|>",
    "<|system|>", "<|user|>", "<|assistant|>", "<|end|>",
]  # fmt: skip
# Phi-4-multimodal's code and config say these numbers: its tokens for an image and for speech are the second and third.
_MULTIMODAL_SPECIAL = {
    "<|endoftext|>": 199999, "<|endoftext10|>": 200010, "<|endoftext11|>": 200011, "<|assistant|>": 200019,
    "<|end|>": 200020, "<|user|>": 200021, "<|system|>": 200022,
}  # fmt: skip
_TURNS = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>NL' + m['content'] + '<|end|>NL' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>NL' }}{% endif %}"
)
_IM_TURNS = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '<|im_sep|>' + m['content'] + '<|im_end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}"
)
_TEMPLATES = {
    "bpe": _TURNS.replace("NL", ""),
    "bpe-cl100k": _IM_TURNS,
    "bpe-multimodal": _TURNS.replace("NL", ""),
    "spm": _TURNS.replace("NL", "\\n"),
}


def write_tokenizer(directory: Path, kind: Kind) -> dict[str, int]:
    """Write tokenizer.json and tokenizer_config.json; returns the ids of the special tokens by content. A tiktoken
    vocabulary is one file of its own, and its special tokens stand in no file."""
    if kind == "tiktoken":
        return _write_tiktoken(directory / "cl100k_base.tiktoken")
    special = _PHI3_SPECIAL if kind == "spm" else _PHI4_SPECIAL
    vocab, merges = _spm_vocab() if kind == "spm" else _byte_vocab()
    ids = {token: len(vocab) + i for i, token in enumerate(special)}
    if kind == "bpe-multimodal":
        special, ids = list(_MULTIMODAL_SPECIAL), _MULTIMODAL_SPECIAL
    # As in Phi-3-mini's tokenizer: the turn markers swallow the white space after them.
    added = [_added(ids[t], t, rstrip=kind == "spm" and t != "<|endoftext|>") for t in special]
    if kind == "spm":
        added[:0] = [_added(0, "<unk>"), _added(1, "<s>"), _added(2, "</s>", rstrip=True, special=False)]
    body = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        **(_spm_stages() if kind == "spm" else _byte_stages(_PATTERNS[kind])),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>" if kind == "spm" else None,
            "continuing_subword_prefix": "" if kind != "spm" else None,
            "end_of_word_suffix": "" if kind != "spm" else None,
            "fuse_unk": kind == "spm",
            "byte_fallback": kind == "spm",
            "vocab": vocab,
            "merges": [list(pair) for pair in merges],
        },
    }
    settings: dict[str, Any] = {
        "add_bos_token": False,
        "added_tokens_decoder": {str(t["id"]): {k: v for k, v in t.items() if k != "id"} for t in added},
        "bos_token": "<s>" if kind == "spm" else "<|endoftext|>",
        "chat_template": _TEMPLATES[kind],
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "tokenizer_class": "LlamaTokenizer" if kind == "spm" else "GPT2Tokenizer",
        "unk_token": "<unk>" if kind == "spm" else "<|endoftext|>",
    }
    for name, data in (("tokenizer.json", body), ("tokenizer_config.json", settings)):
        (directory / name).write_text(json.dumps(data, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return ids | ({"<s>": 1} if kind == "spm" else {})


def _write_tiktoken(file: Path) -> dict[str, int]:
    """The byte-level vocabulary with its ids as ranks; special tokens as far behind it as Phi-3-small has them."""
    tokens, _ = _byte_vocab()
    letters = {letter: byte for byte, letter in _byte_letters().items()}
    lines = (
        f"{base64.b64encode(bytes(letters[letter] for letter in token)).decode()} {rank}\n"
        for token, rank in tokens.items()
    )
    file.write_text("".join(lines), encoding="ascii")
    return {"<|endoftext|>": len(tokens) + 1, "<|end|>": len(tokens) + 10}


def _added(token: int, content: str, *, rstrip: bool = False, special: bool = True) -> dict[str, Any]:
    return {
        "id": token,
        "content": content,
        "single_word": False,
        "lstrip": False,
        "rstrip": rstrip,
        "normalized": False,
        "special": special,
    }


def _learn(words: Counter[tuple[str, ...]]) -> list[tuple[str, str]]:
    """The MERGES most frequent pairs, greedily (Sennrich et al., arXiv 1508.07909); ties by spelling."""
    merges: list[tuple[str, str]] = []
    for _ in range(MERGES):
        pairs: Counter[tuple[str, str]] = Counter()
        for word, count in words.items():
            for pair in pairwise(word):
                pairs[pair] += count
        left, right = max(pairs, key=lambda p: (pairs[p], p))
        merges.append((left, right))
        merged: Counter[tuple[str, ...]] = Counter()
        for word, count in words.items():
            out: list[str] = []
            for symbol in word:
                if out and out[-1] == left and symbol == right:
                    out[-1] = left + right
                else:
                    out.append(symbol)
            merged[tuple(out)] += count
        words = merged
    return merges


def _byte_letters() -> dict[int, str]:
    """GPT-2's byte alphabet: printable Latin-1 bytes stand for themselves, the rest for U+0100 and up."""
    letters = {byte: chr(byte) for byte in [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]}
    hidden = [byte for byte in range(256) if byte not in letters]
    return letters | {byte: chr(0x100 + i) for i, byte in enumerate(hidden)}


def _byte_vocab() -> tuple[dict[str, int], list[tuple[str, str]]]:
    letters = _byte_letters()
    words = re.findall(r" ?\w+| ?[^\w\s]+|\s+", _TEXT)
    merges = _learn(Counter(tuple(letters[b] for b in word.encode()) for word in words))
    tokens = [*letters.values(), *(a + b for a, b in merges)]
    return {token: i for i, token in enumerate(tokens)}, merges


def _spm_vocab() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """SentencePiece's order: control pieces, bytes, merged pieces by rank, then single characters."""
    words = re.findall(r"▁?\w+|▁?[^\w\s▁]+|▁", _TEXT.replace("\n", " ").replace(" ", "▁"))
    learnt = _learn(Counter(tuple(word) for word in words))
    pieces = list(dict.fromkeys(a + b for a, b in learnt))
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), *pieces]
    tokens += sorted({*"".join(words), *map(chr, range(0x21, 0x7F))} - set(pieces))
    vocab = {token: i for i, token in enumerate(tokens)}
    # SentencePiece merges any two neighbours whose union is a piece: list every split, best piece first.
    splits = [(p[:i], p[i:]) for p in pieces for i in range(1, len(p))]
    return vocab, [(a, b) for a, b in splits if a in vocab and b in vocab]


def _byte_stages(pattern: str) -> dict[str, Any]:
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Removed", "invert": True}
    return {
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]},
        "post_processor": {**level, "trim_offsets": False},
        "decoder": {**level, "use_regex": True},
    }


def _spm_stages() -> dict[str, Any]:
    prepend = {"type": "Prepend", "prepend": "▁"}
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    back = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    sequence = {"type": "TemplateProcessing", "special_tokens": {}}
    return {
        "normalizer": {"type": "Sequence", "normalizers": [prepend, spaces]},
        "pre_tokenizer": None,
        "post_processor": {
            **sequence,
            "single": [{"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [back, {"type": "ByteFallback"}, {"type": "Fuse"}, strip],
        },
    }

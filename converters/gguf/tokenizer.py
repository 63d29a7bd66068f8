"""tokenizer.json as llama.cpp's vocabulary: the same token ids for the same text.

Two kinds: byte-level BPE (`gpt2`) and SentencePiece-style BPE with byte fallback (`llama`). tokenizer.json is
the one source, as it is for the `tokenizers` library, which the tests compare with; a checkpoint that has only
a tokenizer.model must be re-saved first. Format of the file: the `tokenizers` library's serialization, 1.0.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf import TokenType

from converters.errors import CheckpointError, UnsupportedError
from converters.gguf import pretokenizers, sentencepiece

MAX_JSON_BYTES = 64 << 20
MAX_JSON_VALUES = 1 << 22
"""The largest published tokenizers have half of either; a value costs Python about 64 bytes."""
OTHER_KINDS = ("tokenizer.model", "vocab.json", "merges.txt", "vocab.txt", "tekken.json")
# Texts at which llama.cpp stops wherever they are in the vocabulary (src/llama-vocab.cpp, special_eog_ids). It
# makes them control tokens whatever the file says: where special tokens are not parsed, they are plain text.
KNOWN_STOPS = frozenset(
    ("<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>",
     "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>",
     "<end_of_utterance>", "<eos>")
)  # fmt: skip


@dataclass(frozen=True)
class AddedToken:
    """A token that is cut out of the text before any merge. lstrip, rstrip: it swallows white space there."""

    id: int
    content: str
    special: bool
    lstrip: bool
    rstrip: bool


@dataclass(frozen=True)
class Vocabulary:
    """`tokens`, `types` (gguf.TokenType) and `scores` have one entry a row of the embedding.

    `prefix`, `suffix`: ids that the tokenizer itself puts around every text (BOS, EOS).
    """

    model: str
    pre: str
    tokens: list[str]
    types: list[int]
    scores: list[float] | None
    merges: list[str] | None
    unknown: int | None
    add_space_prefix: bool
    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    added: tuple[AddedToken, ...]


def read_vocabulary(directory: Path, vocab_size: int) -> Vocabulary | None:
    """None when the checkpoint has no tokenizer at all (it then runs on token ids only).

    Raises CheckpointError for a damaged tokenizer.json and UnsupportedError for one that llama.cpp cannot
    follow to the letter. Ids without a token (embeddings are often padded) become unused tokens.
    """
    path = directory / "tokenizer.json"
    if not path.is_file():
        for other in OTHER_KINDS:
            if (directory / other).is_file():
                raise UnsupportedError(
                    f"{directory}: no tokenizer.json, only {other}",
                    hint="re-save it with transformers: AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)",
                )
        return None
    data = read_json(path)
    try:
        return _vocabulary(data, path, vocab_size)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        raise damaged(path, f"{type(error).__name__} {error}") from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of bounded size, or CheckpointError."""
    if path.stat().st_size > MAX_JSON_BYTES:
        raise damaged(path, f"larger than {MAX_JSON_BYTES >> 20} MiB")
    raw = path.read_bytes()
    if raw.count(b",") + raw.count(b"[") + raw.count(b"{") > MAX_JSON_VALUES:
        raise damaged(path, f"more than {MAX_JSON_VALUES} values")
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise damaged(path, str(error)) from None
    if not isinstance(data, dict):
        raise damaged(path, "not a JSON object")
    return data


def damaged(path: Path, what: str) -> CheckpointError:
    return CheckpointError(f"{path}: {what}", hint="fetch the checkpoint again: edge pull NAME")


def _vocabulary(data: dict[str, Any], path: Path, vocab_size: int) -> Vocabulary:
    model = data["model"]
    if model.get("type") != "BPE":
        raise sentencepiece.refuse(f"model type {model.get('type')}")
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise sentencepiece.refuse(f"{key} is {model[key]!r}")
    vocab: dict[str, int] = model["vocab"]
    # Two spellings: "a b" until tokenizers 0.20, ["a", "b"] since.
    merges = [_pair(m.split(" ") if isinstance(m, str) else m) for m in model["merges"]]
    if any(text not in vocab for left, right in merges for text in (left, right, left + right)):
        raise damaged(path, "a merge of, or into, what is no token of the vocabulary")
    added = _added(data)
    tokens, types = _tokens(vocab, added, path, vocab_size)
    prefix, suffix = _around(data.get("post_processor"), {t.content: t.id for t in added} | vocab)
    if not model.get("byte_fallback"):
        if data.get("normalizer") is not None:
            raise sentencepiece.refuse(f"the normalizer {data['normalizer'].get('type')}")
        whole = bool(model.get("ignore_merges"))
        pre = pretokenizers.find(data.get("pre_tokenizer"), whole_words=whole)
        if pre.whole_words != whole:
            _check_whole_words(vocab, merges, {t.content for t in added})
        joined = [" ".join(m) for m in merges]
        return Vocabulary("gpt2", pre.name, tokens, types, None, joined, None, False, prefix, suffix, added)
    space = sentencepiece.adds_space(data.get("normalizer"), data.get("pre_tokenizer"))
    sentencepiece.check_bytes(vocab)
    if model.get("ignore_merges"):
        raise sentencepiece.refuse("ignore_merges")
    if raw := [t["content"] for t in data.get("added_tokens", ()) if t.get("normalized")]:
        raise sentencepiece.refuse(f"the added token {raw[0]!r} is looked for after normalization")
    order = sentencepiece.scores(set(tokens), merges)
    scores = [order.get(token, sentencepiece.UNMERGED_SCORE) for token in tokens]
    for token, i in vocab.items():
        if sentencepiece.BYTE.fullmatch(token):
            types[i] = TokenType.BYTE
    unknown = vocab.get(model.get("unk_token") or "")
    if unknown is not None:
        types[unknown] = TokenType.UNKNOWN
    return Vocabulary("llama", "default", tokens, types, scores, None, unknown, space, prefix, suffix, added)


def _pair(merge: list[str]) -> tuple[str, str]:
    left, right = merge
    return left, right


def _check_whole_words(vocab: dict[str, int], merges: list[tuple[str, str]], added: set[str]) -> None:
    """Taking whole words first changes nothing when the merges make every token out of its own text."""
    from tokenizers import models

    model = models.BPE(vocab, merges)
    for token in vocab:
        if token not in added and len(model.tokenize(token)) != 1:
            raise sentencepiece.refuse(f"the merges do not lead to the token {token!r}")


def _added(data: dict[str, Any]) -> tuple[AddedToken, ...]:
    out = []
    for t in data.get("added_tokens") or ():
        if t.get("single_word"):
            raise sentencepiece.refuse(f"the added token {t['content']!r} only matches as a single word")
        text = str(t["content"])
        special = bool(t.get("special")) or text in KNOWN_STOPS
        out.append(AddedToken(int(t["id"]), text, special, bool(t.get("lstrip")), bool(t.get("rstrip"))))
    return tuple(out)


def _tokens(
    vocab: dict[str, int], added: tuple[AddedToken, ...], path: Path, vocab_size: int
) -> tuple[list[str], list[int]]:
    """Texts and types by id. llama.cpp ends the process at two equal texts, so that is caught here."""
    by_id: dict[int, str] = {}
    for text, i in [*vocab.items(), *((t.content, t.id) for t in added)]:
        if not isinstance(i, int) or not 0 <= i < vocab_size:
            raise damaged(path, f"token {text!r} has the id {i}, the embedding has {vocab_size} rows")
        if not text or by_id.setdefault(i, text) != text:
            raise damaged(path, f"id {i} stands for {by_id.get(i, '')!r} and {text!r}")
    if len(set(by_id.values())) != len(by_id):
        raise damaged(path, "two ids stand for the same token")
    taken = set(by_id.values())
    tokens, types = [], [int(TokenType.NORMAL)] * vocab_size
    for i in range(vocab_size):
        text = by_id.get(i, f"[PAD{i}]")
        if i not in by_id:
            types[i] = TokenType.UNUSED
            if text in taken:
                raise damaged(path, f"{text!r} is a token, and the name for the unused id {i}")
        tokens.append(text)
    for token in added:
        types[token.id] = TokenType.CONTROL if token.special else TokenType.USER_DEFINED
    return tokens, types


def _around(stage: dict[str, Any] | None, ids: dict[str, int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Ids that the post-processor puts before and after a single text."""
    before: list[int] = []
    after: list[int] = []
    stages = [] if stage is None else stage["processors"] if stage["type"] == "Sequence" else [stage]
    for one in stages:
        if one["type"] == "ByteLevel":
            continue
        if one["type"] != "TemplateProcessing":
            raise sentencepiece.refuse(f"the post-processor {one['type']}")
        side = before
        for part in one["single"]:
            if "Sequence" in part:
                side = after
            else:
                side.append(ids[part["SpecialToken"]["id"]])
    return tuple(before), tuple(after)

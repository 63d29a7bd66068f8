"""Phi-3-small's vocabulary, a tiktoken file, as tokenizer.json of the `tokenizers` library.

A line of the file is a token in base64 and its rank. tiktoken joins the pair of lowest rank until none is left; the
merges of a BPE model in the order of their results' ranks do the same, if each splits its result as tiktoken's own
joining does: that is how they are found here. Byte-level tokens are written with GPT-2's letters for bytes.
"""

from __future__ import annotations

import base64
import binascii
import json
from pathlib import Path
from typing import Any

from converters.errors import CheckpointError

VOCABULARY = "cl100k_base.tiktoken"
MAX_BYTES = 16 << 20
# Facts of cl100k_base (tiktoken) and of the model's tokenization_phi3_small.py: the expression that cuts text into
# words, and the special tokens by their distance from the number of ranks: those of a conversation, and those that the
# model must never say.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
SPECIAL = {"<|endoftext|>": 1, "<|system|>": 5, "<|user|>": 6, "<|assistant|>": 7, "<|end|>": 10}
_NEVER_SAID = {"<|fim_prefix|>": 2, "<|fim_middle|>": 3, "<|fim_suffix|>": 4, "<|endofprompt|>": 20}
_FIRST_DUMMIES = {"<|dummy_id_0|>": 8, "<|dummy_id_1|>": 9, "<|dummy_id_2|>": 0}
# Of the model's tokenizer_config.json on the hub.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{'<|' + message['role'] + '|>' + '\\n' + message['content'] + "
    "'<|end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}"
    "{% endif %}"
)
_FIX = "fetch the file again"


def read_ranks(file: Path) -> dict[bytes, int]:
    """Token to rank. CheckpointError that names the line where the file is damaged."""
    if file.stat().st_size > MAX_BYTES:
        raise CheckpointError(
            f"{file} is larger than {MAX_BYTES >> 20} MiB", hint="this is no vocabulary: " + _FIX
        )
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        if not line:
            continue
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error):
            raise CheckpointError(f"{file}: line {number} is no token and rank", hint=_FIX) from None
    if sorted(ranks.values()) != list(range(len(ranks))) or any(
        bytes([byte]) not in ranks for byte in range(256)
    ):
        raise CheckpointError(
            f"{file}: its ranks are not 0 to {len(ranks) - 1}, or a byte has none", hint=_FIX
        )
    return ranks


def unused_ids(file: Path, vocab_size: int) -> tuple[int, ...]:
    """The ids below `vocab_size` that stand for no text and no mark of a conversation."""
    first = len(read_ranks(file))
    return tuple(i for i in range(first, vocab_size) if i - first not in SPECIAL.values())


def tokenizer_files(file: Path, vocab_size: int, *, chat_template: str = CHAT_TEMPLATE) -> dict[str, bytes]:
    """tokenizer.json and tokenizer_config.json for a model of `vocab_size` rows. CheckpointError when the file is
    damaged, or has more tokens than the model has rows."""
    ranks = read_ranks(file)
    if len(ranks) + max(_NEVER_SAID.values()) >= vocab_size:
        raise CheckpointError(
            f"{file} has {len(ranks)} tokens, the embedding {vocab_size} rows",
            hint="config.json and the vocabulary are not of one model: fetch the checkpoint again",
        )
    letters = _byte_letters()

    def written(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    merges = [[written(part) for part in _halves(file, ranks, token)] for token in _joined(ranks)]
    names = _special_names(len(ranks), vocab_size)
    files = {
        "tokenizer.json": _tokenizer({written(token): rank for token, rank in ranks.items()}, merges, names),
        "tokenizer_config.json": _config(names, chat_template),
    }
    return {name: (json.dumps(data, ensure_ascii=False) + "\n").encode() for name, data in files.items()}


def _special_names(first: int, vocab_size: int) -> dict[int, str]:
    """Of every id from `first` on. The `tokenizers` library numbers added tokens without gaps, so that those which are
    none have to have their names too."""
    named = {first + place: name for name, place in (SPECIAL | _NEVER_SAID | _FIRST_DUMMIES).items()}
    left = (i for i in range(first, vocab_size) if i not in named)
    dummies = {i: f"<|dummy_id_{number}|>" for number, i in enumerate(left, len(_FIRST_DUMMIES))}
    return {i: name for i, name in sorted((named | dummies).items()) if i < vocab_size}


def _joined(ranks: dict[bytes, int]) -> list[bytes]:
    """The tokens of more than one byte, by rank."""
    return sorted((token for token in ranks if len(token) > 1), key=ranks.__getitem__)


def _halves(file: Path, ranks: dict[bytes, int], token: bytes) -> list[bytes]:
    """The last two pieces of which tiktoken makes `token`: its bytes, joined by pairs of lower rank than its own."""
    rank, pieces = ranks[token], [token[i : i + 1] for i in range(len(token))]
    while len(pieces) > 2:
        pairs = [ranks.get(pieces[i] + pieces[i + 1], rank) for i in range(len(pieces) - 1)]
        best = min(range(len(pairs)), key=pairs.__getitem__)
        if pairs[best] >= rank:
            raise CheckpointError(
                f"{file}: the token of rank {rank} cannot be made of tokens of lower ranks", hint=_FIX
            )
        pieces[best : best + 2] = [pieces[best] + pieces[best + 1]]
    return pieces


def _byte_letters() -> list[str]:
    """GPT-2's letter for every byte: itself where it prints, else one from U+0100 on (openai/gpt-2, encoder.py)."""
    prints = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(256))
    return [chr(byte) if byte in prints else chr(256 + next(others)) for byte in range(256)]


def _added(name: str) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"content": name, **flags}


def _tokenizer(vocab: dict[str, int], merges: list[list[str]], special: dict[int, str]) -> dict[str, Any]:
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Isolated", "invert": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, **_added(name)} for i, name in sorted(special.items())],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            # tiktoken takes a word that is a token as it is, however its pieces would be joined.
            "ignore_merges": True,
            "vocab": vocab,
            "merges": merges,
        },
    }


def _config(special: dict[int, str], chat_template: str) -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "bos_token": "<|endoftext|>",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "added_tokens_decoder": {str(i): _added(name) for i, name in sorted(special.items())},
        "chat_template": chat_template,
    }

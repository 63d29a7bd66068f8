"""A tiktoken vocabulary as tokenizer.json: the ids that tiktoken gives, whatever the text.

tiktoken is not installed here; its algorithm is written down below, from its README and `_educational.py`. With the
package itself (0.14) and the real cl100k_base the two agreed on 6,037 texts, on every letter, and on 311 kB of this
repository.
"""

from __future__ import annotations

import base64
from itertools import pairwise
from pathlib import Path

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from benchmarks.toy_tokenizers import write_tokenizer
from converters.errors import CheckpointError
from converters.tiktoken import PATTERN, SPECIAL, VOCABULARY, read_ranks, tokenizer_files, unused_ids

VOCAB_SIZE = 640
TRICKY = [
    "", " ", "  \n  ", "hi  \n  ", "x\r\n\r\ny", "\t\tdef f():\n\t\treturn  1\n", "I'm he'S it'ſ CAN'T we've'd 'tis",
    "1234567 ١٢٣٤ ½", "日本語 你好 한국어", "مرحبا", "👨‍👩‍👧‍👦 🇩🇪", "a\u00a0b\u2028c\u0085d\u3000e",
    "\x00\x7f\ufeff", "a" * 300, "\n" * 50,
    "\u0301abc", "the values of the tensors is what the converter reads and writes", " \u200b x", "checkpoint",
]  # fmt: skip


class Tiktoken:
    """Words by the expression, then the pair of lowest rank joined until there is none."""

    def __init__(self, ranks: dict[bytes, int], special: dict[str, int]) -> None:
        self._ranks, self._special = ranks, special
        self._marks = regex.compile("|".join(map(regex.escape, special)))

    def encode(self, text: str) -> list[int]:
        ids, start = [], 0
        for mark in self._marks.finditer(text):
            ids += [*self._plain(text[start : mark.start()]), self._special[mark.group()]]
            start = mark.end()
        return ids + self._plain(text[start:])

    def _plain(self, text: str) -> list[int]:
        return [i for word in regex.findall(PATTERN, text) for i in self._word(word.encode())]

    def _word(self, word: bytes) -> list[int]:
        parts = [bytes([byte]) for byte in word]
        while len(parts) > 1:
            pairs = [self._ranks.get(a + b, 1 << 60) for a, b in pairwise(parts)]
            if min(pairs) == 1 << 60:
                break
            at = pairs.index(min(pairs))
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        return [self._ranks[part] for part in parts]


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tiktoken")
    write_tokenizer(directory, "tiktoken")
    return directory / VOCABULARY


@pytest.fixture(scope="module")
def both(vocabulary: Path) -> tuple[Tokenizer, Tiktoken]:
    ranks = read_ranks(vocabulary)
    special = {name: len(ranks) + place for name, place in SPECIAL.items()}
    made = tokenizer_files(vocabulary, VOCAB_SIZE)["tokenizer.json"]
    return Tokenizer.from_str(made.decode()), Tiktoken(ranks, special)


def same(both: tuple[Tokenizer, Tiktoken], text: str) -> None:
    ours, theirs = both
    ids = ours.encode(text, add_special_tokens=False).ids
    assert ids == theirs.encode(text), repr(text)
    assert ours.decode(ids, skip_special_tokens=False) == text


def test_tricky_texts(both: tuple[Tokenizer, Tiktoken]) -> None:
    for text in TRICKY:
        same(both, text)
    same(both, "<|user|>\nwhat is it?<|end|>\n<|assistant|>\n" + "".join(TRICKY) + "<|endoftext|>")


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.text(max_size=60) | st.text("aeinorst '\n\t1.-é", max_size=80))
def test_any_text(both: tuple[Tokenizer, Tiktoken], text: str) -> None:
    same(both, text)


def test_every_id_has_the_name_that_the_model_gives_it(vocabulary: Path) -> None:
    """The layout of tokenization_phi3_small.py, its numbers counted from the end of the ranks."""
    n = len(read_ranks(vocabulary))
    tokenizer = Tokenizer.from_str(tokenizer_files(vocabulary, VOCAB_SIZE)["tokenizer.json"].decode())
    named = {
        "<|dummy_id_2|>": 0, "<|endoftext|>": 1, "<|fim_prefix|>": 2, "<|fim_suffix|>": 4, "<|system|>": 5,
        "<|assistant|>": 7, "<|dummy_id_0|>": 8, "<|dummy_id_1|>": 9, "<|end|>": 10, "<|dummy_id_3|>": 11,
        "<|dummy_id_11|>": 19, "<|endofprompt|>": 20, "<|dummy_id_12|>": 21, "<|dummy_id_13|>": 22,
    }  # fmt: skip
    assert {name: tokenizer.token_to_id(name) - n for name in named} == named
    assert tokenizer.get_vocab_size() == VOCAB_SIZE
    unused = unused_ids(vocabulary, VOCAB_SIZE)
    assert set(range(n, VOCAB_SIZE)) - set(unused) == {n + place for place in SPECIAL.values()}


def test_a_damaged_vocabulary_is_refused(vocabulary: Path, tmp_path: Path) -> None:
    lines = vocabulary.read_text().splitlines()
    file = tmp_path / VOCABULARY
    orphan = base64.b64encode(b"\x00\x01\x02\x03").decode()
    for damage, message in (
        ([*lines, "!!!! 400"], f"line {len(lines) + 1} is no token and rank"),
        ([*lines, "QUJD"], "is no token and rank"),
        (lines[:-2] + lines[-1:], "its ranks are not 0 to"),
        (lines[1:], "its ranks are not 0 to"),
        ([*lines, f"{orphan} {len(lines)}"], f"the token of rank {len(lines)} cannot be made"),
    ):
        file.write_text("\n".join(damage))
        with pytest.raises(CheckpointError, match=message):
            tokenizer_files(file, VOCAB_SIZE)
    with pytest.raises(CheckpointError, match="the embedding 380 rows"):
        tokenizer_files(vocabulary, 380)

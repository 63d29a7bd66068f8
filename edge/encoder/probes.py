"""What an encoder is proven on: passages of the text that ships, of many lengths, in one padded batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from converters.errors import CheckpointError
from edge.calibration_text import DEFAULT_TEXT

COUNT = 32
LONGEST = 96
"""Tokens; the shortest passages have 4 and less than the padding beside them."""


def read_tokenizer(directory: Path, length: int) -> Tokenizer:
    """tokenizer.json, cut at `length` tokens and without padding of its own. Raises CheckpointError."""
    file = directory / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises bare Exception for a missing and for a malformed file
        raise CheckpointError(
            f"{file}: {error}",
            hint="save it with transformers: AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)",
        ) from None
    tokenizer.no_padding()
    tokenizer.enable_truncation(length)
    return tokenizer


def probe_texts() -> list[str]:
    """COUNT passages, evenly spaced through the text, from a few words to more than LONGEST tokens."""
    words = DEFAULT_TEXT.read_text(encoding="utf-8").split()
    starts = np.linspace(0, len(words) - LONGEST, COUNT).astype(int)
    return [" ".join(words[start : start + 2 + 3 * i]) for i, start in enumerate(starts)]


def batch(tokenizer: Tokenizer, texts: list[str], pad: int) -> dict[str, NDArray[np.int64]]:
    """input_ids and attention_mask, int64 [texts, longest], of single texts: token types are all 0, and left out."""
    rows = [tokenizer.encode(text).ids for text in texts]
    longest = max(map(len, rows))
    return {
        "input_ids": np.array([row + [pad] * (longest - len(row)) for row in rows], np.int64),
        "attention_mask": np.array([[1] * len(row) + [0] * (longest - len(row)) for row in rows], np.int64),
    }

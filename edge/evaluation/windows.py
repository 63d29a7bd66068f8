"""A text as windows of tokens, cut as llama.cpp's llama-perplexity cuts it (tools/perplexity/perplexity.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.errors import UnsupportedError

LENGTH = 512
"""llama-perplexity's default context."""
SHORTEST = 8


@dataclass(frozen=True)
class Windows:
    """Consecutive windows without overlap; in each the first half is context only, the rest is predicted.

    ids: int64 [windows, length]; where `bos` is a token, it stands in place of each window's first one.
    """

    ids: NDArray[np.int64]
    bos: int | None

    @property
    def length(self) -> int:
        return int(self.ids.shape[1])

    @property
    def first(self) -> int:
        """First position whose prediction is scored; the last is length - 2."""
        return self.length // 2

    @property
    def scored(self) -> int:
        """Predictions scored in a window."""
        return self.length - 1 - self.first

    @property
    def targets(self) -> NDArray[np.int64]:
        """The tokens to predict, int64 [windows, scored]."""
        return self.ids[:, self.first + 1 :]

    def to_data(self) -> dict[str, Any]:
        return {
            "windows": len(self.ids),
            "length": self.length,
            "stride": self.length,
            "first_scored_position": self.first,
            "last_scored_position": self.length - 2,
            "predictions": self.targets.size,
            "bos": self.bos,
        }


def cut(ids: Sequence[int], *, length: int, bos: int | None, most: int | None, name: str) -> Windows:
    """The first `most` windows (None: all) of a text's token ids, which begin without BOS.

    `name` is what an error calls the text. Raises UnsupportedError when it is too short for one window.
    """
    if length < SHORTEST:
        raise UnsupportedError(
            f"a window of {length} tokens is asked for", hint=f"--length {SHORTEST} or more"
        )
    tokens = np.asarray(ids if bos is None else [bos, *ids], np.int64)
    count = len(tokens) // length
    if count == 0:
        fits = len(tokens) >= SHORTEST
        raise UnsupportedError(
            f"{name} has {len(tokens)} tokens, one window needs {length}",
            hint=f"a longer text, or --length {len(tokens)}" if fits else "a longer text",
        )
    windows = tokens[: min(count, most or count) * length].reshape(-1, length).copy()
    if bos is not None:
        windows[:, 0] = bos
    return Windows(windows, bos)


def read_text(file: Path) -> str:
    """A text file, which must be UTF-8. Raises UnsupportedError with the byte at which it is not."""
    data = file.read_bytes()
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UnsupportedError(
            f"{file} is not UTF-8: byte {error.start} is 0x{data[error.start]:02x}",
            hint=f"iconv -f LATIN1 -t UTF-8 {file} > utf8.txt (or whatever encoding it has)",
        ) from None

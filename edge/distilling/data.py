"""The examples of a distillation: windows of a text for a decoder, labelled lines for an encoder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from converters.errors import CheckpointError, UnsupportedError
from edge.evaluation.windows import read_text
from edge.runtimes.tokenizer import FolderTokenizer

PROBE = 20_000
"""Characters that two tokenizers are compared over."""
PIECE = 200_000
"""Characters that a tokenizer is given at once."""

Ids = NDArray[np.int64]


def read_words(text: Path, checkpoint: Path, length: int) -> tuple[Ids, None]:
    """A text file as consecutive windows int64 [n, length] of the checkpoint's tokens; the rest is left out."""
    tokenizer = FolderTokenizer(checkpoint)
    ids = [i for piece in pieces(_read(text)) for i in tokenizer.encode(piece, special=True)]
    if len(ids) < length:
        raise UnsupportedError(
            f"{text} has {len(ids)} tokens, one window takes {length}", hint="give a longer text, or --length"
        )
    return np.array(ids[: len(ids) // length * length], np.int64).reshape(-1, length), None


def pieces(text: str, size: int = PIECE) -> Iterator[str]:
    """The text in pieces of about `size` characters that end with a paragraph: a tokenizer takes a hundred bytes for
    each byte that it is given at once."""
    start = 0
    while start < len(text):
        end = text.find("\n\n", start + size) + 2
        end = len(text) if end < 2 else end
        yield text[start:end]
        start = end


def read_labelled(text: Path, checkpoint: Path, config: Mapping[str, Any], length: int) -> tuple[Ids, Ids]:
    """Lines {"text": .., "label": ..} as ids int64 [n, length], padded with -1, and labels int64 [n].

    A label is a number or a name of the config's id2label. Raises UnsupportedError that names the line.
    """
    names = {str(v): int(k) for k, v in config.get("id2label", {0: "LABEL_0", 1: "LABEL_1"}).items()}
    tokenizer = _tokenizer(checkpoint)
    tokenizer.enable_truncation(length)
    rows, labels = [], []
    for number, line in enumerate(_read(text).splitlines(), 1):
        if not line.strip():
            continue
        words, label = _labelled(f"{text}:{number}", line, names)
        rows.append(tokenizer.encode(words).ids)
        labels.append(label)
    if not rows:
        raise UnsupportedError(f"{text} holds no line", hint='one {"text": "..", "label": ..} a line')
    ids = np.full((len(rows), max(map(len, rows))), -1, np.int64)
    for row, found in zip(ids, rows, strict=True):
        row[: len(found)] = found
    return ids, np.array(labels, np.int64)


def label_names(text: Path) -> tuple[str, ...]:
    """The names that lines {"text": .., "label": ..} use, in alphabetical order. Raises UnsupportedError when they
    are fewer than two."""
    found = set()
    for line in _read(text).splitlines():
        try:
            found.add(json.loads(line)["label"])
        except (ValueError, TypeError, LookupError):
            continue  # `read_labelled` names the line
    names = tuple(sorted(name for name in found if isinstance(name, str)))
    if len(names) < 2:
        raise UnsupportedError(
            f"{text} names {len(names)} of the classes that a new head would tell apart",
            hint='one {"text": "..", "label": "NAME"} a line, two names at least',
        )
    return names


def check_same_tokens(text: Path, teacher: Path, student: Path) -> None:
    """The first PROBE characters of `text` must be the same tokens for both. Raises UnsupportedError if not."""
    probe = _read(text)[:PROBE]
    one, other = (_tokenizer(d).encode(probe, add_special_tokens=False).ids for d in (teacher, student))
    if one != other:
        at = next(
            (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
        )
        raise UnsupportedError(
            f"teacher and student have different tokenizers: they part at token {at} of {text.name}",
            hint="give a student of the teacher's family, or cut one from it with --layers",
        )


def _labelled(place: str, line: str, names: Mapping[str, int]) -> tuple[str, int]:
    shape = f'one {{"text": "..", "label": ..}} a line; labels: {", ".join(names)[:200]}'
    try:
        data = json.loads(line)
    except ValueError:
        data = None
    if not isinstance(data, dict) or not isinstance(data.get("text"), str):
        raise UnsupportedError(f"{place}: no JSON object with a text", hint=shape)
    if data.get("label") is None:
        raise UnsupportedError(f"{place}: the label is missing", hint=shape)
    label = data["label"]
    number = names.get(label, -1) if isinstance(label, str) else label
    if type(number) is not int or number not in names.values():
        raise UnsupportedError(f"{place}: label {label!r} is none of the model's {len(names)}", hint=shape)
    return data["text"], number


def _tokenizer(checkpoint: Path) -> Any:
    path = checkpoint / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception for a missing and for a malformed file
        raise CheckpointError(f"{path}: {error}", hint="the checkpoint needs its tokenizer.json") from None
    # A published tokenizer may pad every text to one length, with a mask that nobody here would see.
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _read(text: Path) -> str:
    try:
        return read_text(text)
    except OSError as error:
        raise UnsupportedError(
            f"{text} cannot be read: {error.strerror}", hint=f"try: ls -l {text}"
        ) from None

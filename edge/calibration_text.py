"""What a model is calibrated on: windows of tokens, of a file or of the text and the chats that ship.

The chats are rendered with the model's own template, so that they hold the tokens that it will meet in use.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.decoder import Decoder
from converters.errors import CheckpointError, UnsupportedError
from edge.chat.templates import ChatTemplate
from edge.evaluation.tokens import folder_first_token
from edge.evaluation.windows import read_text as read_utf8
from edge.runtimes.tokenizer import FolderTokenizer

_SHIPPED = Path(__file__).parent.parent / "quant"
DEFAULT_TEXT, DEFAULT_CHATS = _SHIPPED / "calibration.txt", _SHIPPED / "calibration_chats.jsonl"
LENGTH = 512
WINDOWS = 64
"""Time and the residual streams' memory grow with them, and quality (quant/README.md)."""
CHATS = 4
"""Every so manieth window is one of chats, where they are those that ship."""
FEWEST = 4
"""Fewer windows leave the Hessian of a layer with more columns than tokens."""

Windows = NDArray[np.int64]


@dataclass(frozen=True)
class CalibrationText:
    """What is calibrated on. windows: token ids int64 [n, length]. chats: how many of them are chats that ship, and
    template: whether those are in the model's own template, which may be missing or refuse them."""

    name: str
    sha256: str
    windows: Windows
    chats: int = 0
    template: bool = False

    def to_data(self) -> dict[str, Any]:
        return {
            "text": self.name,
            "sha256": self.sha256,
            "windows": int(self.windows.shape[0]),
            "length": int(self.windows.shape[1]),
            "chats": self.chats,
            "template": self.template,
        }


def read_text(
    file: Path | None, checkpoint: Path, decoder: Decoder, *, count: int = WINDOWS
) -> CalibrationText:
    """Cut `file` (None: what ships) under the checkpoint's own tokenizer; at most `count` windows, evenly spread.

    Raises UnsupportedError when the text cannot be read or is too short.
    """
    path = file or DEFAULT_TEXT
    try:
        text = read_utf8(path)
    except OSError as error:
        raise UnsupportedError(
            f"calibration text {path} cannot be read: {error.strerror}", hint=f"try: ls -l {path}"
        ) from None
    tokenizer = FolderTokenizer(checkpoint)
    length = min(LENGTH, decoder.context_length)
    ids = tokenizer.encode(text, special=True)
    if len(ids) < FEWEST * length:
        raise UnsupportedError(
            f"calibration text {path} has {len(ids)} tokens, it takes {FEWEST * length} at least",
            hint="give a longer text, or --calibrate without a file for the one that ships",
        )
    chats, template = _chats(tokenizer)
    windows = np.array(ids[: len(ids) // length * length], np.int64).reshape(-1, length)
    packed = _spread(_pack(chats, length), count // CHATS if file is None else 0)
    windows = _spread(windows, count - len(packed))
    _begin(windows, folder_first_token(checkpoint), chats[0][0])
    name, digest = path.name, hashlib.sha256(text.encode())
    if file is None:
        windows = np.concatenate([windows, packed])
        digest.update(DEFAULT_CHATS.read_bytes())
        name = f"{path.name} and {len(packed)} windows of chats"
    if windows.max() >= decoder.vocab_size:
        raise CheckpointError(
            f"{checkpoint / 'tokenizer.json'} gives the id {windows.max()}, the embedding has "
            f"{decoder.vocab_size} rows",
            hint="fetch the checkpoint again: the tokenizer belongs to another model",
        )
    return CalibrationText(name, digest.hexdigest(), windows, len(packed), template and len(packed) > 0)


def _chats(tokenizer: FolderTokenizer) -> tuple[list[list[int]], bool]:
    """The ids of each chat that ships, and whether they are in the model's own template.

    Where it has none that can be used, which is `edge chat`'s to tell, they are in words.
    """
    dialect = tokenizer.dialect(frozenset())
    chats = [json.loads(line) for line in DEFAULT_CHATS.read_text(encoding="utf-8").splitlines()]
    if dialect.template is not None:
        try:
            template = ChatTemplate(
                dialect.template, bos_token=dialect.bos_token, eos_token=dialect.eos_token
            )
            ids = [tokenizer.encode(_rendered(template, chat), special=True) for chat in chats]
            if all(ids):
                return ids, True
        except UnsupportedError:
            pass
    words = (f"Question: {chat['user']}\nAnswer: {chat['assistant']}\n\n" for chat in chats)
    return [tokenizer.encode(text, special=True) for text in words], False


def _rendered(template: ChatTemplate, chat: dict[str, str]) -> str:
    messages = [{"role": role, "content": chat[role]} for role in ("user", "assistant")]
    return template.render(messages, add_generation_prompt=False)


def _pack(chats: Sequence[Sequence[int]], length: int) -> Windows:
    """Windows that begin as a chat begins, [n, length]; what does not fit into the last one's rest is dropped."""
    windows: list[list[int]] = []
    ids: list[int] = []
    for chat in chats:
        ids += chat
        if len(ids) >= length:
            windows.append(ids[:length])
            ids = []
    return np.array(windows, np.int64).reshape(-1, length)


def _spread(windows: Windows, count: int) -> Windows:
    """At most `count` of them, evenly spaced."""
    if len(windows) <= count:
        return windows
    return windows[np.linspace(0, len(windows) - 1, count).astype(np.intp)]


def _begin(windows: Windows, first: int | None, chat: int) -> None:
    """Put the token that a text begins with at the front of every window, or of every other one the chats' own.

    The first token of a sequence takes a part of its own in attention: it should be the one that is met in use.
    """
    if first is not None:
        windows[:, 0] = first
    else:
        windows[::2, 0] = chat

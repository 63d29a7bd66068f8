"""What artifacts are measured against: a checkpoint's float32 evaluation, or another artifact in its runtime."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from converters.checkpoint import Checkpoint
from converters.decoder import Decoder
from converters.errors import UnsupportedError
from converters.models import describe_whole
from converters.multimodal import text_of
from converters.reference import head_logits, hidden_states
from edge.evaluation.engine import Engine
from edge.evaluation.tokens import folder_first_token
from edge.evaluation.windows import Windows
from edge.progress import Progress
from edge.runtimes.tokenizer import FolderTokenizer


class Reference(Protocol):
    """Reusable for any number of artifacts and texts."""

    name: str
    runtime: str
    vocab_size: int
    bos: int | None

    def encode(self, text: str) -> list[int]:
        """Token ids without BOS; a special token's text stays text."""

    def prepare(self, windows: Sequence[Windows], progress: Progress) -> None:
        """Do now what `logits` of these would have to do each for itself."""

    def logits(self, windows: Windows) -> Iterator[NDArray[np.float32]]:
        """As `Engine.logits`; needs `prepare`."""


class CheckpointReference:
    """The final hidden states of every prepared window stay in memory, float32 [windows, scored, hidden]; the
    logits are made from them window by window. Closing the checkpoint is the caller's."""

    runtime = "float32 evaluation of the checkpoint"

    def __init__(
        self, checkpoint: Checkpoint, decoder: Decoder | None = None, *, name: str | None = None
    ) -> None:
        """decoder: the checkpoint's, where it is described already."""
        self.name = name or checkpoint.directory.name
        self._checkpoint = checkpoint
        self._decoder: Decoder = decoder or text_of(describe_whole(checkpoint))
        self._tokenizer = FolderTokenizer(checkpoint.directory)
        self._hidden: dict[bytes, NDArray[np.float32]] = {}
        self.vocab_size = self._decoder.vocab_size
        self.bos = folder_first_token(checkpoint.directory)

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, special=False)

    def prepare(self, windows: Sequence[Windows], progress: Progress) -> None:
        """Every weight is read once for all windows of one length. Raises UnsupportedError where the embedding has
        no row for a token."""
        missing = {_key(w): w for w in windows if _key(w) not in self._hidden}
        for length in sorted({w.length for w in missing.values()}):
            together = [w for w in missing.values() if w.length == length]
            ids = np.concatenate([w.ids for w in together])
            if ids.max() >= self.vocab_size:
                raise UnsupportedError(
                    f"{self.name}: its tokenizer gives the id {ids.max()}, the embedding has {self.vocab_size} rows",
                    hint="fetch the checkpoint again: the tokenizer belongs to another model",
                )
            progress.stage(f"reference {self.name}: {len(ids)} windows", self._decoder.depth, "layers")
            states = hidden_states(self._checkpoint, self._decoder, ids, advance=progress.advance)
            parts = np.split(
                states[:, together[0].first : -1], np.cumsum([len(w.ids) for w in together])[:-1]
            )
            self._hidden |= {_key(w): part.copy() for w, part in zip(together, parts, strict=True)}

    def logits(self, windows: Windows) -> Iterator[NDArray[np.float32]]:
        for states in self._hidden[_key(windows)]:
            yield head_logits(self._checkpoint, self._decoder, states)


class ArtifactReference:
    """Another artifact: its engine runs anew beside each artifact that it is compared with."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.name, self.runtime = engine.name, engine.runtime
        self.vocab_size, self.bos = engine.vocab_size, engine.bos

    def encode(self, text: str) -> list[int]:
        return self.engine.encode(text)

    def prepare(self, windows: Sequence[Windows], progress: Progress) -> None:
        pass

    def logits(self, windows: Windows) -> Iterator[NDArray[np.float32]]:
        return self.engine.logits(windows)


def _key(windows: Windows) -> bytes:
    return windows.length.to_bytes(8) + windows.ids.tobytes()

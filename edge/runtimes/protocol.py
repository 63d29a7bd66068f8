"""What an engine must do to run a variant; chat and proof know engines only through this."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

DEFAULT_CONTEXT = 8192
"""The most that an engine takes unasked: engines commit the memory of the whole KV cache at load."""


@dataclass(frozen=True)
class Dialect:
    """How an artifact's own files say that it wants to be talked to.

    template: Jinja source of the chat template, None when the artifact has none.
    prefix: ids that every prompt starts with (BOS where asked for), unless it already does.
    stop_ids: every token that ends an answer. special_texts: texts that `encode(special=True)` parses.
    """

    template: str | None
    bos_token: str
    eos_token: str
    prefix: tuple[int, ...]
    stop_ids: frozenset[int]
    special_texts: tuple[str, ...]


class Runtime(Protocol):
    """One loaded model with one sequence in its KV cache.

    The cache holds `position` tokens. A LongRoPE model whose factors switch at `original_context` gives, at
    any total length, what a fresh prefill of that length gives: the engine file takes care of it.
    """

    name: str
    """Engine and version, e.g. "onnxruntime-genai 0.18.0"."""
    context_length: int
    vocab_size: int

    @property
    def position(self) -> int: ...

    def append(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Run `ids` after what the cache holds; logits of the last position, float32 [vocab_size].

        Raises UnsupportedError when position + len(ids) > context_length; the cache is then unchanged.
        """

    @property
    def room(self) -> int:
        """How many tokens `append_all` takes at once: up to the end of the context, or up to LongRoPE's switch.

        Beyond that switch the logits of the earlier rows would be those of the long factors.
        """

    def append_all(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """`append`, with the logits of each of `ids`: float32 [len(ids), vocab_size].

        An engine may sum a row of several in another order than a row alone (edge.chat.invariance measures it).
        """

    def teacher_forced(self, ids: Sequence[int], *, first: int = 0) -> NDArray[np.float32]:
        """Logits at the positions of `ids` from `first` on, from an empty cache.

        float32 [len(ids) - first, vocab_size].
        """

    def rewind(self, position: int) -> None:
        """Forget all tokens from `position` on (0 empties the cache)."""

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Token ids of `text`, no BOS added; special tokens in it are parsed when `special`."""

    def token_bytes(self, token: int) -> bytes:
        """The raw bytes a token stands for (may be a part of a UTF-8 character); b"" for special tokens."""

    def dialect(self) -> Dialect:
        """Template, start and stop tokens, read from the artifact itself."""

    def close(self) -> None: ...


@dataclass(frozen=True)
class Medium:
    """An image or a recording ready for a prompt: `ids` stand in it for the file, `after` follows them as text.

    kind: "image" or "audio". key: of the content; two files of one key look and sound the same to the model.
    """

    kind: str
    key: str
    ids: tuple[int, ...]
    after: str


@runtime_checkable
class Perceiving(Protocol):
    """An engine whose prompts may hold images or recordings."""

    @property
    def kinds(self) -> frozenset[str]:
        """Of media that it takes."""

    def read(self, kind: str, path: Path) -> Medium:
        """The file, prepared. MediaError for a damaged one, UnsupportedError for a kind that it does not take."""

    def show(self, media: Sequence[Medium]) -> None:
        """What the `ids` of media in the sequence stand for from now on, in order.

        The cache keeps what it holds of the same conversation, and forgets (see `position`) what these change.
        """


@runtime_checkable
class Stateful(Protocol):
    """An engine whose KV cache can be taken out and put back, in another process too."""

    @property
    def state_key(self) -> str:
        """All that a state depends on besides model file and tokens: engine, version, cache types, settings."""

    def export_state(self) -> bytes:
        """The state of the `position` tokens in the cache, at the same position."""

    def import_state(self, ids: Sequence[int], data: bytes) -> bool:
        """Put back what `export_state` gave for `ids`; False (and an empty cache) when the engine refuses it."""


@runtime_checkable
class Interruptible(Protocol):
    """An engine that reads a long prompt in batches."""

    between: Callable[[], None]
    """Called after each batch. What it raises ends the reading; the cache then holds the batches so far."""


@runtime_checkable
class Adaptable(Protocol):
    """An engine that switches between low-rank adapters that lie beside its artifact."""

    adapter: str | None
    """The one in use."""

    @property
    def adapters(self) -> tuple[str, ...]:
        """Those that there are, sorted."""

    def use_adapter(self, name: str | None) -> None:
        """Compute with adapter `name` (None: without) from now on; the cache is then empty, for it depends on it.

        UnsupportedError, with the names that there are, for an unknown one, and when the engine refuses its file.
        """

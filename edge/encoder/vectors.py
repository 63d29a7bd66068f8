"""Sentence vectors from a bundle: a text in, one vector out, as the checkpoint's own modules make it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.errors import BundleError, UnsupportedError
from edge.bundle import Bundle, Variant, load
from edge.encoder.probes import read_tokenizer
from edge.encoder.session import open_graph, run_session
from edge.formats import ENCODER


@dataclass(frozen=True)
class Embedder:
    """An opened bundle. context_length: tokens of a text, special ones included. width: numbers in a vector."""

    label: str
    context_length: int
    width: int
    vocab_size: int
    _session: Any
    _tokenizer: Any
    _pooling: str
    _normalized: bool

    def ids(self, text: str) -> list[int]:
        """All token ids of `text`, special ones around it, whether they fit or not."""
        found: list[int] = self._tokenizer.encode(text).ids
        return found

    @property
    def frame(self) -> tuple[list[int], list[int]]:
        """The special tokens before and behind the tokens of every text."""
        encoded = self._tokenizer.encode("a")
        own = [i for i, special in enumerate(encoded.special_tokens_mask) if not special]
        return encoded.ids[: own[0]], encoded.ids[own[-1] + 1 :]

    def vector(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """float32 [width] of the text with these ids. By itself, so that no text beside it has a say: an int8 graph
        rounds by the largest activation of a batch. That costs time for very short texts only."""
        row = np.array([ids], np.int64)
        hidden = run_session(self._session, {"input_ids": row, "attention_mask": np.ones_like(row)})[0]
        pooled: NDArray[np.float32] = (
            hidden[0] if self._pooling == "cls" else hidden.mean(0, dtype=np.float32)
        )
        if self._normalized:
            pooled = pooled / max(float(np.linalg.norm(pooled)), 1e-12)
        return pooled


def open_embedder(
    directory: Path, variant: str | None = None, context: int | None = None, threads: int | None = None
) -> Embedder:
    """The sentence vectors of a bundle, by its first variant or the one named. context: a lower limit of tokens.

    Raises BundleError for what is no bundle or lacks the variant, UnsupportedError for an encoder that gives labels,
    or hidden states that nothing says how to make one vector of.
    """
    bundle = load(directory)
    model = bundle.manifest["model"]
    if model.get("labels"):
        raise UnsupportedError(
            f"{directory} holds a classifier ({', '.join(model['labels'])}); OpenAI's interface has no path for labels",
            hint=f"edge classify {directory} TEXT",
        )
    if not model.get("pooling") or "normalized" not in model:
        raise UnsupportedError(
            f"{directory} does not say how one vector is made of a text's hidden states",
            hint="edge convert again, of a checkpoint with sentence-transformers' modules.json",
        )
    chosen = _choose(bundle, variant)
    if context and context > chosen.context_length:
        raise UnsupportedError(
            f"--context {context} is more than the {chosen.context_length} tokens of {directory}",
            hint="leave --context out",
        )
    tokenizer = read_tokenizer(directory, chosen.context_length)
    tokenizer.no_truncation()
    return Embedder(
        f"{directory.resolve().name}/{chosen.name}",
        context or chosen.context_length,
        int(model["hidden_size"]),
        int(model["vocab_size"]),
        open_graph(chosen.path, threads),
        tokenizer,
        str(model["pooling"]),
        bool(model["normalized"]),
    )


def _choose(bundle: Bundle, name: str | None) -> Variant:
    found = {v.name: v for v in bundle.variants if v.format == ENCODER}
    if name is not None and name not in found:
        raise BundleError(f"{bundle.directory} has no variant '{name}'", hint=f"it has: {', '.join(found)}")
    return found[name] if name else next(iter(found.values()))

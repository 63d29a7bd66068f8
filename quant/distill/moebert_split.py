"""How MoEBERT (arXiv 2204.07675) splits an MLP into experts, and which token goes to which. No torch here.

The neurons of a layer in descending order of their importance: the first `shared` are in every expert, the others are
dealt out in turn, and each expert keeps as many of its own as fit into `size`. What lies further back is dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from converters.errors import UnsupportedError
from quant.blocks import BLOCK

Routing = Literal["hash", "hash-balance"]
"""Token ids to experts at random, or so that every expert gets as many tokens of the text."""
Ints = NDArray[np.int64]

_EXPERT, _SHARED = 4, 6
"""An MLP is so many times as wide as an expert, and as its shared part: BERT-base's 3072, 768 and 512."""


@dataclass(frozen=True)
class Split:
    """Of every layer's MLP: `experts` of `size` neurons each, of which the first `shared` are the same."""

    experts: int
    size: int
    shared: int

    @property
    def kept(self) -> int:
        """Neurons of the dense MLP that some expert has."""
        return self.shared + self.experts * (self.size - self.shared)


def plan_split(inner: int, experts: int = 4, size: int | None = None, shared: int | None = None) -> Split:
    """For an MLP of `inner` neurons; None: in the proportion of the paper's, in whole blocks of codes where they fit.

    Raises UnsupportedError where the neurons do not go round, or an expert has none of its own.
    """
    unit = BLOCK if inner >= _EXPERT * BLOCK else 1
    size = max(1, inner // _EXPERT // unit * unit) if size is None else size
    shared = min(inner // _SHARED, size - 1) if shared is None else shared
    split = Split(experts, size, shared)
    if shared >= size:
        raise UnsupportedError(
            f"experts of {size} neurons, {shared} of them shared, would all be one",
            hint=f"try: --expert-size {size} --shared {size * _EXPERT // _SHARED}",
        )
    if split.kept > inner:
        least = -(-(experts * size - inner) // (experts - 1)) if experts > 1 else 0
        raise UnsupportedError(
            f"{experts} experts of {size} neurons, {shared} of them shared, take {split.kept}, and an MLP has {inner}",
            hint=f"try: --shared {least}" if least < size else f"try: --expert-size {inner // experts}",
        )
    return split


def deal(importance: NDArray[np.floating[Any]], split: Split) -> Ints:
    """Which neurons each expert has, [experts, size]: the shared ones first, in descending order of importance.

    Of equally important ones the first comes first.
    """
    order = np.argsort(-importance, kind="stable")
    shared, rest = order[: split.shared], order[split.shared :]
    own = split.size - split.shared
    return np.stack([np.concatenate([shared, rest[e :: split.experts][:own]]) for e in range(split.experts)])


def hash_table(vocabulary: int, experts: int, seed: int, layer: int) -> Ints:
    """The expert of every token id, drawn anew for each layer (as the authors' code does; arXiv 2106.04426)."""
    return np.random.default_rng([seed, 2, layer]).integers(experts, size=vocabulary)


def balanced_table(counts: Ints, experts: int, seed: int, layer: int) -> Ints:
    """The same, where `counts` [vocabulary] says how often a text has each token: the most frequent first, each to the
    expert that has least so far (equal ones: at random). Tokens that the text has not are drawn."""
    random = np.random.default_rng([seed, 2, layer])
    table = random.integers(experts, size=len(counts))
    load = random.permutation(experts) / experts  # the fractions decide between equal ones
    seen = np.flatnonzero(counts)
    for token in seen[np.argsort(-counts[seen], kind="stable")]:
        table[token] = load.argmin()
        load[table[token]] += counts[token]
    return table


def routing_tables(
    routing: Routing, ids: Ints, vocabulary: int, experts: int, layers: int, seed: int
) -> Ints:
    """[layers, vocabulary]. ids: the text's tokens of any shape, negative ones padding."""
    if routing == "hash":
        return np.stack([hash_table(vocabulary, experts, seed, i) for i in range(layers)])
    counts = np.bincount(ids[ids >= 0], minlength=vocabulary)
    return np.stack([balanced_table(counts, experts, seed, i) for i in range(layers)])


def experts_of_config(config: Mapping[str, Any]) -> Split:
    """What a checkpoint of this method says of itself."""
    return Split(
        int(config["num_local_experts"]), int(config["intermediate_size"]), int(config["shared_neurons"])
    )

"""What storing cost: the error of every weight, and of the hidden states behind every layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.decoder import Decoder, Weight
from converters.forward import Floats, rope_table, run_layer
from converters.reference import CHUNK_BYTES, Streamed, Transform
from converters.rewriting import RowSource
from converters.verify import Stored
from edge.reporting.storages import COLUMNS, matrices


@dataclass(frozen=True)
class Artifact:
    """Weights read back, the rows that they were made of, and what its runtime computes with them: the checkpoint's
    and its decoder, unless both are rewritten for the format (`converters.rewriting`)."""

    stored: Stored
    source: RowSource
    decoder: Decoder


@dataclass(frozen=True)
class Errors:
    """Relative to the source: ||stored - original|| / ||original||.

    `layers`: float64 [layers, len(COLUMNS)], Frobenius norms. `outside`: the same of the embedding and lm_head, by
    name. `hidden`: float64 [layers], of the residual stream behind each layer, mean over positions.
    """

    layers: NDArray[np.float64]
    outside: dict[str, float]
    hidden: NDArray[np.float64]
    positions: int

    def to_data(self) -> dict[str, Any]:
        return {
            "columns": list(COLUMNS),
            "layers": [[_digits(v) for v in row] for row in self.layers],
            "outside": {name: _digits(v) for name, v in self.outside.items()},
            "hidden": [_digits(v) for v in self.hidden],
            "positions": self.positions,
        }


def errors(
    decoder: Decoder,
    artifacts: Sequence[Artifact],
    ids: Sequence[int],
    advance: Callable[[int], None] = lambda _: None,
) -> list[Errors]:
    """Compare each artifact's weights with its source's, and what the reference evaluator makes of both on `ids`.

    Bounded memory: weights are read in row chunks. `advance` is told 1 after every layer.
    """
    heads = (decoder.embedding,) if decoder.tied else (decoder.embedding, decoder.lm_head)
    outside = {weight.name: weight_errors(artifacts, (weight,)) for weight in heads}
    tokens = np.asarray(ids, np.int64)
    # Each source once, though several artifacts come of it.
    sources = {id(each.source): _Run(Streamed(each.source), each.decoder, tokens) for each in artifacts}
    runs = [_Run(Streamed(each.source, _through(each.stored)), each.decoder, tokens) for each in artifacts]
    cos, sin = rope_table(decoder.rope, tokens.size)
    weights = np.empty((len(artifacts), len(decoder.layers), len(COLUMNS)))
    hidden = np.empty((len(artifacts), len(decoder.layers)))
    for index, layer in enumerate(decoder.layers):
        for column, group in enumerate(matrices(layer)):
            weights[:, index, column] = weight_errors(artifacts, group)
        for run in (*sources.values(), *runs):
            run.step(index, cos, sin)
        for i, (artifact, run) in enumerate(zip(artifacts, runs, strict=True)):
            original = sources[id(artifact.source)].state
            whole = np.maximum(_norms(original), np.finfo(np.float64).tiny)
            hidden[i, index] = np.mean(_norms(run.state - original) / whole)
        advance(1)
    return [
        Errors(weights[i], {name: values[i] for name, values in outside.items()}, hidden[i], tokens.size)
        for i in range(len(artifacts))
    ]


class _Run:
    """The residual stream of one evaluation."""

    def __init__(self, weights: Streamed, decoder: Decoder, tokens: NDArray[np.int64]) -> None:
        self._weights = weights
        self._decoder = decoder
        self._tokens = tokens
        self.state = weights.gather(decoder.embedding, tokens)

    def step(self, layer: int, cos: Floats, sin: Floats) -> None:
        block = self._decoder.layers[layer]
        run_layer(self._weights, block, self._decoder, self.state, cos, sin, self._tokens)


def weight_errors(artifacts: Sequence[Artifact], weights: Sequence[Weight]) -> list[float]:
    """Relative Frobenius error of some weights together in each artifact; 0 where both are zero."""
    found = []
    for artifact in artifacts:
        whole, lost = 0.0, 0.0
        for weight in weights:
            for start, stop in _chunks(weight):
                rows = artifact.source.weight_rows(weight, start, stop).astype(np.float32)
                difference = rows - artifact.stored.rows(weight, start, stop)
                whole += float(np.vdot(rows, rows))
                lost += float(np.vdot(difference, difference))
        found.append(math.sqrt(lost / whole) if whole else 0.0 if lost == 0 else float("inf"))
    return found


def _through(stored: Stored) -> Transform:
    """The reference evaluator's weights, taken from the artifact."""
    return lambda weight, start, raw: stored.rows(weight, start, start + len(raw))


def _chunks(weight: Weight) -> Iterator[tuple[int, int]]:
    step = max(1, CHUNK_BYTES // (4 * weight.shape[-1])) if weight.is_matrix else weight.rows
    for start in range(0, weight.rows, step):
        yield start, min(start + step, weight.rows)


def _norms(states: Floats) -> NDArray[np.float64]:
    norms: NDArray[np.float64] = np.sqrt(np.einsum("pc,pc->p", states, states, dtype=np.float64))
    return norms


def _digits(value: float) -> float:
    return float(f"{value:.4g}")

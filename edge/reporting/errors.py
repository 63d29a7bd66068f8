"""What storing cost: the error of every weight, and of the hidden states behind every layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.checkpoint import Checkpoint
from converters.decoder import Decoder, Weight
from converters.forward import Floats, rope_table, run_layer
from converters.reference import CHUNK_BYTES, Streamed, Transform
from converters.verify import Stored
from edge.reporting.storages import COLUMNS, matrices


@dataclass(frozen=True)
class Errors:
    """Relative to the checkpoint: ||stored - original|| / ||original||.

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
    checkpoint: Checkpoint,
    decoder: Decoder,
    artifacts: Sequence[Stored],
    ids: Sequence[int],
    advance: Callable[[int], None] = lambda _: None,
) -> list[Errors]:
    """Compare each artifact's weights with the checkpoint's, and what the reference evaluator makes of them on `ids`.

    Bounded memory: weights are read in row chunks. `advance` is told 1 after every layer.
    """
    heads = (decoder.embedding,) if decoder.tied else (decoder.embedding, decoder.lm_head)
    outside = {weight.name: weight_errors(checkpoint, artifacts, weight) for weight in heads}
    tokens = np.asarray(ids, np.int64)
    runs = [Streamed(checkpoint), *(Streamed(checkpoint, _through(stored)) for stored in artifacts)]
    states = [run.gather(decoder.embedding, tokens) for run in runs]
    cos, sin = rope_table(decoder.rope, tokens.size)
    weights = np.empty((len(artifacts), len(decoder.layers), len(COLUMNS)))
    hidden = np.empty((len(artifacts), len(decoder.layers)))
    for index, layer in enumerate(decoder.layers):
        for column, weight in enumerate(matrices(layer)):
            weights[:, index, column] = weight_errors(checkpoint, artifacts, weight)
        for run, state in zip(runs, states, strict=True):
            run_layer(run, layer, decoder, state, cos, sin)
        whole = np.maximum(_norms(states[0]), np.finfo(np.float64).tiny)
        hidden[:, index] = [np.mean(_norms(state - states[0]) / whole) for state in states[1:]]
        advance(1)
    return [
        Errors(weights[i], {name: values[i] for name, values in outside.items()}, hidden[i], tokens.size)
        for i in range(len(artifacts))
    ]


def weight_errors(checkpoint: Checkpoint, artifacts: Sequence[Stored], weight: Weight) -> list[float]:
    """Relative Frobenius error of one weight in each artifact; 0 where both are zero."""
    whole, lost = 0.0, np.zeros(len(artifacts))
    for start, stop in _chunks(weight):
        rows = checkpoint.weight_rows(weight, start, stop).astype(np.float32)
        whole += float(np.vdot(rows, rows))
        for i, stored in enumerate(artifacts):
            difference = rows - stored.rows(weight, start, stop)
            lost[i] += float(np.vdot(difference, difference))
    if whole == 0:
        return [0.0 if each == 0 else float("inf") for each in lost]
    return [float(each) for each in np.sqrt(lost / whole)]


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

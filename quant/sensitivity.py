"""What storing one weight in one format costs: the KL divergence in nats a token, for all weights from one pass.

To second order in a change dW of one weight, the mean KL of the changed model from the original is

    KL = 1/2 E[(sum_t g_t . dW x_t)^2] = 1/2 E[<G, dW>^2],    G = sum_t g_t x_t'

where x are the weight's inputs and g the gradients of log p(y) at its outputs, with y drawn from the model itself:
the Fisher information is the KL's Hessian (Amari 1998, "Natural gradient works efficiently in learning"). One
backward pass (`quant.backward`) gives G for every window and weight, and each candidate's dW is what its codec
does to the rows.

Rows are quantized apart from each other, so their errors are taken as uncorrelated and <G, dW>^2 as the sum of the
rows' squares: what is dropped is zero on average, and its noise was larger than the thing itself (measured:
`python -m benchmarks.sensitivity`). Within a row nothing is dropped, so codes that let errors cancel (GPTQ) count
as what they are. Only ROWS rows of a matrix are looked at, evenly spaced: that bounds memory and time.
For lm_head the expectation over y is taken exactly: 1/2 sum_r p_r (1 - p_r) (dW_r x)^2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from converters.checkpoint import Checkpoint
from converters.decoder import Decoder, Layer, Weight
from converters.forward import Floats
from converters.reference import Resident, Streamed
from converters.writer import Storage
from quant import rtn
from quant.activation_store import Store
from quant.backward import Observer, Tokens, backward
from quant.blocks import BLOCK, FORMATS, BlockFormat, dequantize

ROWS = 512
HEAD_STRIDE = 8
"""Every so manieth scored position is enough for lm_head, whose expectation is exact."""

Costs = dict[str, dict[Storage, float]]
"""Weight name -> storage -> nats a token."""
Errors = Callable[[Weight, BlockFormat, Floats, NDArray[np.int64]], Floats]
"""(weight, format, values of some rows, which rows) -> stored minus original, float32 of the values' shape."""


def measure(
    checkpoint: Checkpoint,
    decoder: Decoder,
    windows: Tokens,
    storages: Sequence[Storage],
    *,
    scored: slice = slice(None),
    seed: int = 0,
    store: Store | None = None,
    errors: Errors | None = None,
    advance: Callable[[int], None] | None = None,
) -> Costs:
    """The cost of each block format of `storages` for every matrix whose columns can be cut into blocks.

    windows: token ids [n, length], of which the positions `scored` are predicted. errors: what a format does to
    rows (default: rounding to nearest, `quant.rtn`). Other arguments and errors as for `quant.backward.backward`.
    Rounding of the floats f16 and bf16 is not looked at.
    """
    formats = [FORMATS[s] for s in storages if s in FORMATS]
    observer = _Observer(checkpoint, decoder, formats, errors or rounding)
    found = backward(
        checkpoint, decoder, windows, observer, scored=scored, seed=seed, store=store, advance=advance
    )
    return {
        name: {storage: total / 2 / found.labels.size for storage, total in by_storage.items()}
        for name, by_storage in observer.totals.items()
    }


def rounding(_: Weight, fmt: BlockFormat, values: Floats, __: NDArray[np.int64]) -> Floats:
    """The error of rounding to nearest."""
    error = dequantize(rtn.quantize(values, fmt))
    error -= values
    return error


class _Observer(Observer):
    """Sums of squares, over windows and rows, by weight and storage."""

    def __init__(
        self, checkpoint: Checkpoint, decoder: Decoder, formats: Sequence[BlockFormat], errors: Errors
    ) -> None:
        self._streamed = Streamed(checkpoint)
        self._decoder = decoder
        self._formats = formats
        self._errors = errors
        self._rows: dict[str, NDArray[np.int64]] = {}
        self._changes: dict[str, dict[Storage, Floats]] = {}
        self._head: tuple[int, dict[Storage, Floats]] = (-1, {})
        self.totals: Costs = {
            weight.name: {cast(Storage, fmt.name): 0.0 for fmt in formats}
            for weight in decoder.weights()
            if weight.is_matrix and weight.shape[1] % BLOCK == 0
        }

    def on_layer(self, layer: Layer, weights: Resident) -> None:
        self._changes.clear()
        for weight in layer.weights():
            if weight.name in self.totals:
                rows = np.linspace(0, weight.rows - 1, min(ROWS, weight.rows)).astype(np.int64)
                self._rows[weight.name] = rows
                self._changes[weight.name] = self._change(weight, weights.matrix(weight)[rows], rows)

    def on_linear(self, weight: Weight, inputs: Floats, gradients: Floats) -> None:
        if weight.name not in self.totals:
            return
        rows = self._rows[weight.name]
        together = gradients[:, rows].T @ inputs
        for storage, change in self._changes[weight.name].items():
            along = np.einsum("rc,rc->r", together, change)
            self._add(weight, storage, float(along @ along) * weight.rows / rows.size)

    def on_head(self, start: int, rows: Floats, inputs: Floats, probabilities: Floats) -> None:
        weight = self._decoder.lm_head
        if weight.name not in self.totals:
            return
        if self._head[0] != start:
            # Windows come one after the other with the same rows.
            self._head = start, self._change(weight, rows, np.arange(start, start + len(rows)))
        share = len(inputs[::HEAD_STRIDE]) / len(inputs)
        p, inputs = probabilities[::HEAD_STRIDE], inputs[::HEAD_STRIDE]
        spread = p * (1 - p)
        for storage, change in self._head[1].items():
            self._add(weight, storage, float(np.vdot(spread, np.square(inputs @ change.T))) / share)

    def on_embedding(self, tokens: NDArray[np.int64], gradients: Floats) -> None:
        weight = self._decoder.embedding
        if weight.name not in self.totals:
            return
        distinct, where = np.unique(tokens, return_inverse=True)
        together = np.zeros((distinct.size, weight.shape[1]), np.float32)
        np.add.at(together, where, gradients)
        values = self._streamed.gather(weight, distinct)
        for storage, change in self._change(weight, values, distinct).items():
            along = np.einsum("rc,rc->r", together, change)
            self._add(weight, storage, float(along @ along))

    def _change(self, weight: Weight, values: Floats, rows: NDArray[np.int64]) -> dict[Storage, Floats]:
        return {cast(Storage, f.name): self._errors(weight, f, values, rows) for f in self._formats}

    def _add(self, weight: Weight, storage: Storage, squares: float) -> None:
        self.totals[weight.name][storage] += squares

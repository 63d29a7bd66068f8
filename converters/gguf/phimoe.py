"""Phi-3.5-MoE for llama.cpp, whose architecture `phimoe` computes RMSNorm and another routing (src/models/phi3.cpp).

What is made exact: every matrix that writes into the residual stream is centred over its outputs (embedding, o and
its bias, the experts' downs), so that the stream's mean is zero and RMSNorm is LayerNorm.
What is not: llama.cpp weighs the chosen two by a softmax over both. SparseMixer's weights are 1 and 1 unless two
experts nearly tie (within 2 %). With routers scaled by SCALE llama.cpp's are 1/2 and 1/2, and with downs doubled 1
and 1: right for a token whose experts do not tie, wrong by up to half of one expert for one whose do.
benchmarks/moe_gguf.md has what else was tried, with its figures (`python -m benchmarks.moe_gguf`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.decoder import Decoder, Experts, Weight
from converters.forward import Floats
from converters.rewriting import Rewriting, RowSource

SCALE = 2.0**-7
"""Small enough that two weights differ by less than 1 % for scores that differ by 2; each power of two less leaves one
bit less of the scores to choose by (at 2**-20 the wrong experts are chosen)."""
_CHUNK_BYTES = 4 << 20
WHY = (
    "llama.cpp has no SparseMixer: tokens of which two experts nearly tie are computed with other weights, "
    "the others as the model does"
)


def rewriting(decoder: Decoder) -> Rewriting | None:
    """How a model with experts becomes what llama.cpp computes; None for any other, which it computes as it is."""
    if not decoder.has_experts:
        return None
    layers = tuple(
        replace(layer, mlp=replace(layer.mlp, routing="softmax")) if isinstance(layer.mlp, Experts) else layer
        for layer in decoder.layers
    )
    return Rewriting(
        replace(decoder, norm="rms", layers=layers), lambda source: _Centring(source, decoder).rows, WHY
    )


class _Centring:
    """The change of rows, for one checkpoint."""

    def __init__(self, source: RowSource, decoder: Decoder) -> None:
        self._source = source
        self._means: dict[str, Floats] = {}
        self._lock = threading.Lock()
        self._changes: dict[str, Callable[[Weight, Floats], Floats]] = {
            decoder.embedding.name: lambda _, rows: rows - rows.mean(axis=1, keepdims=True, dtype=np.float64)
        }
        for layer in decoder.layers:
            for written in (layer.o, layer.o_bias):
                if written is not None:
                    self._changes[written.name] = lambda weight, rows: rows - self._mean(weight)
            if isinstance(layer.mlp, Experts):
                self._changes[layer.mlp.router.name] = lambda _, rows: rows * np.float32(SCALE)
                for expert in layer.mlp.experts:
                    self._changes[expert.down.name] = lambda weight, rows: 2 * (rows - self._mean(weight))

    def rows(self, weight: Weight, start: int, raw: NDArray[Any]) -> NDArray[Any]:
        """`converters.rewriting.Change`."""
        del start  # every row is changed alike
        change = self._changes.get(weight.name)
        return raw if change is None else change(weight, raw.astype(np.float32)).astype(np.float32)

    def _mean(self, weight: Weight) -> Floats:
        """Over all rows, which are read once more for it; kept: 13 MB for the whole of Phi-3.5-MoE."""
        with self._lock:
            if weight.name not in self._means:
                width = weight.shape[1] if weight.is_matrix else 1
                step = max(1, _CHUNK_BYTES // (4 * width))
                total = np.zeros(weight.shape[1:], np.float64)
                for start in range(0, weight.rows, step):
                    rows = self._source.weight_rows(weight, start, min(start + step, weight.rows))
                    total += rows.astype(np.float32).sum(axis=0, dtype=np.float64)
                self._means[weight.name] = np.asarray(total / weight.rows, np.float32)
            return self._means[weight.name]

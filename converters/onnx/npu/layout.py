"""The data files of an NPU variant: one for what the CPU holds, one for what the NPU compiles.

    head.onnx.data      embedding and lm_head, scales float32: embeddings.onnx and lm_head.onnx
    layers.onnx.data    rotary tables (float32) and every layer, scales float16: context.onnx and iterator.onnx.
                        With 16-bit activations as `converters.onnx.npu.row_scaled` says, and a run of zeros

A context binary replaces the second file and leaves the first where it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from converters.decoder import Decoder
from converters.onnx.layout import Layout, lay_out
from converters.onnx.npu.row_scaled import RowScaled
from converters.onnx.rotary import cache_tensors
from converters.onnx.tensors import Stored, Tensor, stored_weights
from converters.writer import Storages

HEAD_DATA, LAYERS_DATA = "head.onnx.data", "layers.onnx.data"
ZEROS = "zeros"
HALF = np.dtype(np.float16)


@dataclass(frozen=True)
class Files:
    """Where every tensor lies; see the module."""

    head: Layout
    layers: Layout

    @property
    def nbytes(self) -> int:
        return self.head.nbytes + self.layers.nbytes


def plan(decoder: Decoder, recipe: Storages, context_length: int) -> Files:
    """`context_length`: of the cache, and so of the rotary tables."""
    stored = stored_weights(decoder, recipe, scale_type=HALF)
    ends = (decoder.embedding, decoder.lm_head)
    head = tuple(Stored(s.name, s.storage, s.weights) for s in stored if s.weights[0] in ends)
    layers = tuple(s for s in stored if s.weights[0] not in ends)
    tables = list(cache_tensors(decoder.rope, context_length))
    if recipe.activations == "u16":
        scaled = [RowScaled(s.name, s.storage, s.weights) for s in layers if s.format]
        layers = tuple(next((r for r in scaled if r.name == s.name), s) for s in layers)
        zeros = max((each.zeros_nbytes for each in scaled), default=0)
        tables += [Tensor(ZEROS, np.dtype(np.uint8), (zeros,))] if zeros else []
    return Files(lay_out(HEAD_DATA, head), lay_out(LAYERS_DATA, layers, tables))

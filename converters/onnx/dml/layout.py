"""The data file of a DirectML variant: rotary tables, zero points, and every weight by itself.

The zero points of a symmetric format are one number, 8 or 128, for every block. MatMulNBits may leave them out, but
DirectML's kernel then takes 0 (`converters.onnx.dml.limits`): here they are, once for all weights of one shape.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from converters.decoder import Decoder
from converters.onnx.layout import DATA_FILE, Layout, lay_out
from converters.onnx.rotary import cache_tensors
from converters.onnx.tensors import Stored, Tensor, stored_weights
from converters.writer import Storages

HALF = np.dtype(np.float16)
ZERO_BYTES = {"int4": 0x88, "int8": 0x80}
"""Two zero points of 8 in a byte, or one of 128."""
_CHUNK_BYTES = 1 << 20


def plan(decoder: Decoder, recipe: Storages, context_length: int) -> Layout:
    stored = stored_weights(decoder, recipe, scale_type=HALF, packed=False)
    shared = {zeros.name: zeros for each in stored if (zeros := zero_points(each, decoder)) is not None}
    return lay_out(DATA_FILE, stored, (*cache_tensors(decoder.rope, context_length), *shared.values()))


def zero_points(stored: Stored, decoder: Decoder) -> Tensor | None:
    """uint8 [rows, blocks, or half of them], shared by name. None for floats, and for what is only looked up."""
    weight = stored.weights[0]
    if stored.format is None or (weight is decoder.embedding and not decoder.tied):
        return None
    blocks = stored.tensors[1].dims[1]
    width = -(-blocks * stored.format.bits // 8)
    name = f"zero_points.{stored.storage}.{stored.rows}x{blocks}"
    return Tensor(name, np.dtype(np.uint8), (stored.rows, width))


def zero_point_rows(layout: Layout) -> Iterator[tuple[str, int, NDArray[np.uint8]]]:
    """(tensor, first row, rows) of all of them, in pieces."""
    for name, tensor in layout.tensors.items():
        if not name.startswith("zero_points."):
            continue
        step = max(1, _CHUNK_BYTES // tensor.row_bytes)
        for first in range(0, tensor.dims[0], step):
            count = min(step, tensor.dims[0] - first)
            yield name, first, np.full((count, *tensor.dims[1:]), ZERO_BYTES[name.split(".")[1]], np.uint8)

"""Weights as the NPU multiplies 16-bit activations by: whole numbers with one float scale a row.

    storage   tensors, first axis the weight's rows                      value
    int4      NAME.codes      int4, two a byte [rows, columns / 2]       code * multiple * scale
              NAME.multiples  uint8 [rows, columns / 32], 1 to 16
              NAME.scales     float32 [rows]
    int8      NAME.codes      int8 [rows, columns]                       code * scale
              NAME.scales     float32 [rows]

Blocks with scales of their own are not for that: the provider takes them too, but turns the activations back into
float16 before it multiplies. The codes are signed; unsigned ones are taken and computed wrongly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.onnx.tensors import Stored, Tensor
from converters.writer import Encoded
from quant.blocks import BLOCK, Blocks
from quant.row_scales import join, split

_UINT8, _INT8, _FLOAT = np.dtype(np.uint8), np.dtype(np.int8), np.dtype(np.float32)


class RowScaled(Stored):
    """`Stored` for a matrix whose block scales are whole multiples of its row's (`quant.row_scales`)."""

    @property
    def is_int4(self) -> bool:
        return self.storage == "int4"

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        scales = Tensor(f"{self.name}.scales", _FLOAT, (self.rows,))
        if not self.is_int4:
            return Tensor(f"{self.name}.codes", _INT8, (self.rows, self.columns)), scales
        codes = Tensor(f"{self.name}.codes", _UINT8, (self.rows, self.columns // 2))
        multiples = Tensor(f"{self.name}.multiples", _UINT8, (self.rows, self.columns // BLOCK))
        return codes, multiples, scales

    @property
    def zeros_nbytes(self) -> int:
        """Of the int4 zero points, one a block, all of them 0."""
        return -(-self.rows * (self.columns // BLOCK) // 2) if self.is_int4 else 0

    def pack(self, rows: Encoded) -> tuple[NDArray[np.generic], ...]:
        """ValueError when it is of another storage, or the scales are no such multiples."""
        if not isinstance(rows, Blocks) or rows.format != self.format:
            raise ValueError(f"{self.name} is stored as {self.storage}")
        multiples, scales = split(rows)
        if self.is_int4:
            signed = rows.codes ^ np.uint8(8)
            return signed[:, 0::2] | (signed[:, 1::2] << np.uint8(4)), multiples, scales
        return (rows.codes ^ np.uint8(0x80)).view(np.int8), scales

    def unpack(self, arrays: Sequence[NDArray[Any]]) -> Encoded:
        """Inverse of `pack`."""
        if self.format is None:
            raise ValueError(f"{self.name} is stored as {self.storage}")
        if self.is_int4:
            packed, multiples, scales = arrays
            pairs = np.stack([packed & 0x0F, packed >> 4], axis=2)
            codes = pairs.reshape(len(packed), -1) ^ np.uint8(8)
            return join(self.format, codes, multiples, scales)
        codes, scales = arrays[0].view(np.uint8) ^ np.uint8(0x80), arrays[1]
        return join(self.format, codes, np.ones((len(codes), codes.shape[1] // BLOCK), np.uint8), scales)

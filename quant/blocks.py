"""The block codec: groups of 32 weights of a row share one float16 scale.

FIRST DRAFT OF THE SIGNATURES: owned by the quant helper.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

BLOCK = 32

FormatName = Literal["int4", "int4_asym", "int8"]


@dataclass(frozen=True)
class BlockFormat:
    """int4: w = (c - 8) s; int4_asym: w = (c - z) s; int8: w = (c - 128) s."""

    name: FormatName
    bits: int
    symmetric: bool


INT4 = BlockFormat("int4", 4, True)
INT4_ASYM = BlockFormat("int4_asym", 4, False)
INT8 = BlockFormat("int8", 8, True)
FORMATS = {f.name: f for f in (INT4, INT4_ASYM, INT8)}


@dataclass(frozen=True)
class Blocks:
    """Rows of a matrix as codes.

    codes: uint8 [rows, columns], unpacked, 0..15 (int4) or 0..255 (int8).
    scales: float16 [rows, columns / 32]. zeros: uint8 [rows, columns / 32], or None when symmetric.
    """

    format: BlockFormat
    codes: NDArray[np.uint8]
    scales: NDArray[np.float16]
    zeros: NDArray[np.uint8] | None = None

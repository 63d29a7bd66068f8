"""ggml's own quantizers, called in the library that llama-cpp-python carries: what llama-quantize stores.

Rows whose length is no multiple of a format's block cannot be stored in it, and llama-quantize then takes a
larger format. To see what the format itself would give, such rows are laid end to end here, so that blocks
run over their ends; each block is the format's own, and so are the bits.
"""

from __future__ import annotations

import ctypes
import math
from functools import cache
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as GgmlType
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@cache
def _library() -> ctypes.CDLL:
    import llama_cpp

    library = ctypes.CDLL(str(Path(llama_cpp.__file__).parent / "lib" / "libggml-base.so"))
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_quantize_chunk.argtypes = [
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_int64,
        ctypes.c_int64,
        ctypes.c_int64,
        ctypes.c_void_p,
    ]
    return library


def bits(kind: GgmlType) -> float:
    """Bits per weight of a format."""
    weights, size = gguf.GGML_QUANT_SIZES[kind]
    return 8 * size / weights


def round_trip(rows: Floats, kind: GgmlType, importance: Floats | None = None) -> Floats:
    """`rows` [n, columns] as `kind` stores them, back in float32.

    importance: mean square of the input of each column (columns,), as llama-imatrix measures it. Raises
    ValueError where not even rows laid end to end make whole blocks.
    """
    block, size = gguf.GGML_QUANT_SIZES[kind]
    joined = math.lcm(rows.shape[1], block) // rows.shape[1]
    if rows.shape[0] % joined:
        raise ValueError(f"{rows.shape[0]} rows of {rows.shape[1]} make no whole blocks of {block}")
    source = np.ascontiguousarray(rows, np.float32).reshape(rows.shape[0] // joined, -1)
    stored = np.empty((source.shape[0], source.shape[1] // block * size), np.uint8)
    weights = None if importance is None else np.tile(importance.astype(np.float32), joined)
    written = _library().ggml_quantize_chunk(
        int(kind),
        source.ctypes.data,
        stored.ctypes.data,
        0,
        *source.shape,
        None if weights is None else weights.ctypes.data,
    )
    if written != stored.nbytes:
        raise RuntimeError(f"ggml wrote {written} bytes of {stored.nbytes}")
    return gguf.dequantize(stored, kind).reshape(rows.shape).astype(np.float32)

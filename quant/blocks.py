"""The block codec: groups of 32 weights of a row share one float16 scale.

Codes are chosen once (`quant.rtn`) and packed here to every format, so an ONNX and a GGUF variant of one
conversion hold the same codes and dequantize to the same floats, bit for bit:

    name        value          ONNX (com.microsoft)                     GGUF (ggml block)
    int4        (c - 8) s      MatMulNBits bits=4, no zero points       Q4_0  f16 s, 16 bytes
    int4_asym   (c - z) s      MatMulNBits bits=4, zero points          Q4_1  f16 s, f16 m = -z s, 16 bytes
    int5        (c - 16) s     none: onnxruntime 1.32 takes 2, 4, 8     Q5_0  f16 s, 4 bytes of fifth bits, 16 bytes
    int8        (c - 128) s    MatMulNBits bits=8, zero point 128       Q8_0  f16 s, 32 signed bytes

Every product above is exact in float32: 11 bits of scale times at most 8 bits of code.
Two nibbles of a byte hold neighbours (2j, 2j + 1) in ONNX, and halves (j, j + 16) in GGUF; low nibble first.
Sources: onnxruntime docs/ContribOperators.md (MatMulNBits); ggml-common.h (block_q4_0, block_q4_1, block_q5_0,
block_q8_0).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

try:
    from quant import _kernel

    KERNEL = True
    """Whether kernel.c was compiled at install. Without it numpy gives the same bits, slower."""
except ImportError:
    KERNEL = False

BLOCK = 32

FormatName = Literal["int4", "int4_asym", "int5", "int8"]


@dataclass(frozen=True)
class BlockFormat:
    """One line of the table above.

    `gguf_bytes`: size of one packed ggml block of 32 weights. `in_onnx`: whether onnxruntime multiplies by it.
    """

    name: FormatName
    bits: int
    symmetric: bool
    gguf_type: Literal["Q4_0", "Q4_1", "Q5_0", "Q8_0"]
    gguf_bytes: int
    in_onnx: bool = True


INT4 = BlockFormat("int4", 4, True, "Q4_0", 18)
INT4_ASYM = BlockFormat("int4_asym", 4, False, "Q4_1", 20)
INT5 = BlockFormat("int5", 5, True, "Q5_0", 22, in_onnx=False)
INT8 = BlockFormat("int8", 8, True, "Q8_0", 34)
FORMATS: dict[str, BlockFormat] = {f.name: f for f in (INT4, INT4_ASYM, INT5, INT8)}


@dataclass(frozen=True)
class Blocks:
    """Rows of a matrix as codes.

    codes: uint8 [rows, columns], unpacked, 0..15 (int4), 0..31 (int5) or 0..255 (int8).
    scales: float16 [rows, columns / 32]. zeros: uint8 [rows, columns / 32], or None when symmetric.
    """

    format: BlockFormat
    codes: NDArray[np.uint8]
    scales: NDArray[np.float16]
    zeros: NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        rows, columns = self.codes.shape
        if columns % BLOCK:
            raise ValueError(f"{columns} columns are no multiple of {BLOCK}")
        if self.scales.shape != (rows, columns // BLOCK):
            raise ValueError(f"scales {self.scales.shape} do not fit codes {self.codes.shape}")
        if (self.zeros is None) != self.format.symmetric:
            raise ValueError(f"zeros do not fit format {self.format.name}")
        if self.zeros is not None and self.zeros.shape != self.scales.shape:
            raise ValueError(f"zeros {self.zeros.shape} do not fit scales {self.scales.shape}")


def dequantize(blocks: Blocks) -> NDArray[np.float32]:
    """The values that the codes stand for, float32 [rows, columns]; exact, nothing is rounded."""
    rows, columns = blocks.codes.shape
    codes = blocks.codes.reshape(rows, columns // BLOCK, BLOCK).astype(np.float32)
    codes -= _centre(blocks)
    codes *= blocks.scales.astype(np.float32)[:, :, None]
    return codes.reshape(rows, columns)


def to_matmulnbits(
    blocks: Blocks,
) -> tuple[NDArray[np.uint8], NDArray[np.float16], NDArray[np.uint8] | None]:
    """Inputs 1, 2 and 3 of MatMulNBits with block_size 32.

    weights uint8 [rows, nblocks, 16 or 32]; scales float16 [rows, nblocks]; zero points
    uint8 [rows, ceil(nblocks / 2)], two a byte and the odd last high nibble 0, or None when symmetric.
    ValueError for int5.
    """
    if not blocks.format.in_onnx:
        raise ValueError(f"onnxruntime has no MatMulNBits of {blocks.format.bits} bits")
    rows, columns = blocks.codes.shape
    nblocks = columns // BLOCK
    if blocks.format.bits == 8:
        weights = np.ascontiguousarray(blocks.codes).reshape(rows, nblocks, BLOCK)
    else:
        weights = _pair(blocks.codes).reshape(rows, nblocks, BLOCK // 2)
    if blocks.zeros is None:
        return weights, blocks.scales, None
    return weights, blocks.scales, _pair(np.pad(blocks.zeros, ((0, 0), (0, nblocks % 2))))


def from_matmulnbits(
    fmt: BlockFormat,
    weights: NDArray[np.uint8],
    scales: NDArray[np.generic],
    zero_points: NDArray[np.uint8] | None = None,
) -> Blocks:
    """Inverse of `to_matmulnbits`; float32 scales (as a float32 graph stores them) are narrowed back."""
    rows, nblocks = scales.shape
    flat = weights.reshape(rows, -1)
    codes = flat if fmt.bits == 8 else _unpair(flat)
    zeros = None if zero_points is None else _unpair(zero_points.reshape(rows, -1))[:, :nblocks]
    return Blocks(fmt, codes, scales.astype(np.float16), zeros)


def to_gguf(blocks: Blocks) -> NDArray[np.uint8]:
    """Rows of ggml blocks of `format.gguf_type`, uint8 [rows, nblocks * format.gguf_bytes]."""
    fmt = blocks.format
    rows, nblocks = blocks.scales.shape
    heads = _bytes(blocks.scales)
    if blocks.zeros is not None:
        heads = np.concatenate([heads, _bytes(0 - blocks.zeros * blocks.scales)], axis=2)
    out = np.empty((rows, nblocks, fmt.gguf_bytes), np.uint8)
    if KERNEL:
        _kernel.pack(fmt.bits, heads, np.ascontiguousarray(blocks.codes), out)
    else:
        _pack(fmt.bits, heads, blocks.codes, out)
    return out.reshape(rows, -1)


def _pack(bits: int, heads: NDArray[np.uint8], codes: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
    """The numpy path of `_kernel.pack`."""
    codes, start = codes.reshape(*out.shape[:2], BLOCK), heads.shape[2]
    out[:, :, :start] = heads
    if bits == 8:
        np.bitwise_xor(codes, 0x80, out=out[:, :, start:])
        return
    if bits == 5:
        out[:, :, start : start + BLOCK // 8] = np.packbits(codes >> 4, axis=2, bitorder="little")
        codes, start = codes & np.uint8(0x0F), start + BLOCK // 8
    np.left_shift(codes[:, :, BLOCK // 2 :], 4, out=out[:, :, start:])
    out[:, :, start:] |= codes[:, :, : BLOCK // 2]


def from_gguf(fmt: BlockFormat, data: NDArray[np.uint8]) -> Blocks:
    """Inverse of `to_gguf`. ValueError when a Q4_1 minimum is no whole multiple 0..15 of its scale."""
    rows = data.shape[0]
    packed = data.reshape(rows, -1, fmt.gguf_bytes)
    scales = np.ascontiguousarray(packed[:, :, 0:2]).view("<f2")[:, :, 0].astype(np.float16)
    if fmt.bits == 8:
        return Blocks(fmt, (packed[:, :, 2:] ^ np.uint8(0x80)).reshape(rows, -1), scales)
    nibbles = packed[:, :, fmt.gguf_bytes - BLOCK // 2 :]
    codes: NDArray[np.uint8] = np.concatenate([nibbles & 0x0F, nibbles >> 4], axis=2)
    if fmt.bits == 5:
        fifths: NDArray[np.uint8] = np.unpackbits(packed[:, :, 2 : 2 + BLOCK // 8], axis=2, bitorder="little")
        codes |= fifths << np.uint8(4)
    codes = codes.reshape(rows, -1)
    if fmt.symmetric:
        return Blocks(fmt, codes, scales)
    minima = np.ascontiguousarray(packed[:, :, 2:4]).view("<f2")[:, :, 0].astype(np.float32)
    steps = scales.astype(np.float32)
    zeros = np.zeros_like(steps)
    np.divide(-minima, steps, out=zeros, where=steps != 0)
    if not np.array_equal(np.clip(np.rint(zeros), 0, 15) * steps, -minima):
        raise ValueError("a Q4_1 minimum is no whole multiple of its scale")
    return Blocks(fmt, codes, scales, zeros.astype(np.uint8))


def _centre(blocks: Blocks) -> NDArray[np.float32] | np.float32:
    if blocks.zeros is not None:
        return blocks.zeros.astype(np.float32)[:, :, None]
    return np.float32(1 << (blocks.format.bits - 1))


def _bytes(values: NDArray[np.float16]) -> NDArray[np.uint8]:
    """float16 [rows, n] -> little-endian bytes [rows, n, 2]."""
    return np.ascontiguousarray(values, "<f2").view(np.uint8).reshape(*values.shape, 2)


def _pair(nibbles: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return nibbles[:, 0::2] | (nibbles[:, 1::2] << np.uint8(4))


def _unpair(packed: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.stack([packed & 0x0F, packed >> 4], axis=2).reshape(packed.shape[0], -1)

"""The quantizer beside its peers: `python -m benchmarks.quantize [--rows N] [--columns N] [--repeats N]`.

One bfloat16 matrix of Gaussian weights becomes int4 in blocks of 32: by edge (codes chosen once, packed to GGUF and
to MatMulNBits) compiled and in numpy, by the gguf package, by llama.cpp's ggml, and by onnxruntime's MatMulNBits
quantizer (one format each). MB/s counts two bytes a weight for everybody; the peers get the float32 matrix that
they ask for, made beforehand. Speeds are the best of the repeats; squared error is relative to edge's.
"""

from __future__ import annotations

import argparse
import ctypes
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import ml_dtypes
import numpy as np
from gguf.quants import quantize as gguf_quantize
from numpy.typing import NDArray

from quant import blocks as codec
from quant import rtn, search
from quant.blocks import BLOCK, INT4, Blocks

CHUNK = 128
"""Rows in one piece of work."""
GGML_TYPE_Q4_0 = 2


@dataclass(frozen=True)
class Contender:
    """`work(rows)` is timed; `read(what it gave)` gives the codes, to measure the error."""

    name: str
    threads: int
    work: Callable[[slice], Any]
    read: Callable[[Any], Blocks]


def edge(matrix: NDArray[np.generic], quantize: Callable[..., Blocks]) -> Callable[[slice], Any]:
    def work(rows: slice) -> Any:
        blocks = quantize(matrix[rows], INT4)
        return codec.to_gguf(blocks), codec.to_matmulnbits(blocks)

    return work


def ggml(matrix: NDArray[np.float32]) -> Callable[[slice], NDArray[np.uint8]]:
    """llama.cpp's own C quantizer, out of llama-cpp-python (ImportError where that is not installed)."""
    import llama_cpp

    (library,) = (Path(llama_cpp.__file__).parent / "lib").glob("libggml-base.so")
    chunk = ctypes.CDLL(str(library)).ggml_quantize_chunk
    chunk.restype = ctypes.c_size_t
    chunk.argtypes = [ctypes.c_int, *[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 3, ctypes.c_void_p]

    def work(rows: slice) -> NDArray[np.uint8]:
        part = matrix[rows]
        out = np.empty((part.shape[0], part.shape[1] // BLOCK * INT4.gguf_bytes), np.uint8)
        chunk(GGML_TYPE_Q4_0, part.ctypes.data, out.ctypes.data, 0, *part.shape, None)
        return out

    return work


def onnxruntime(matrix: NDArray[np.float32]) -> Callable[[slice], Any]:
    from onnxruntime.capi._pybind_state import quantize_matmul_4bits

    transposed = np.ascontiguousarray(matrix.T)

    def work(rows: slice) -> Any:
        part = np.ascontiguousarray(transposed[:, rows])
        k, n = part.shape
        codes = np.zeros((n, k // BLOCK, BLOCK // 2), np.uint8)
        scales, zeros = np.zeros(n * k // BLOCK, np.float32), np.zeros(n * -(-k // BLOCK // 2), np.uint8)
        quantize_matmul_4bits(codes, part, scales, zeros, BLOCK, n, k, True)
        return codes, scales.reshape(n, k // BLOCK)

    return work


def contenders(matrix: NDArray[np.generic]) -> Iterator[Contender]:
    wide = matrix.astype(np.float32)

    def gguf_py(rows: slice) -> NDArray[np.uint8]:
        return gguf_quantize(wide[rows], gguf.GGMLQuantizationType.Q4_0)

    def from_gguf(data: NDArray[np.uint8]) -> Blocks:
        return codec.from_gguf(INT4, data)

    for threads in (1, 2):
        if rtn.KERNEL:
            yield Contender("edge", threads, edge(matrix, rtn.quantize), lambda both: from_gguf(both[0]))
        yield Contender(
            "edge, numpy path", threads, edge(matrix, search.quantize), lambda both: from_gguf(both[0])
        )
        yield Contender("gguf package", threads, gguf_py, from_gguf)
        try:
            yield Contender("llama.cpp ggml", threads, ggml(wide), from_gguf)
        except ImportError:
            print("llama.cpp ggml: left out, llama-cpp-python is not installed")
        yield Contender(
            "onnxruntime", threads, onnxruntime(wide), lambda both: codec.from_matmulnbits(INT4, *both)
        )


def speed(contender: Contender, rows: int, nbytes: int, repeats: int) -> float:
    """MB/s, the best of `repeats`."""
    chunks = [slice(i, min(i + CHUNK, rows)) for i in range(0, rows, CHUNK)]
    best = float("inf")
    with ThreadPoolExecutor(contender.threads) as pool:
        for _ in range(repeats):
            began = time.perf_counter()
            for _done in pool.map(contender.work, chunks):
                pass
            best = min(best, time.perf_counter() - began)
    return nbytes / best / 1e6


def error(contender: Contender, matrix: NDArray[np.generic]) -> float:
    rows = slice(0, min(CHUNK, matrix.shape[0]))
    values = codec.dequantize(contender.read(contender.work(rows)))
    return float(np.square(values.astype(np.float64) - matrix[rows].astype(np.float64)).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--columns", type=int, default=3072)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    shape = (options.rows, options.columns)
    matrix = (np.random.default_rng(0).standard_normal(shape, np.float32) * 0.02).astype(ml_dtypes.bfloat16)
    first: tuple[float, float] | None = None
    print(f"{'':18} threads    MB/s  edge is  squared error")
    for contender in contenders(matrix):
        mb_s = speed(contender, options.rows, matrix.nbytes, options.repeats)
        loss = error(contender, matrix)
        if first is None or contender.name == "edge":
            first = (mb_s, loss)
        ratio, worse = first[0] / mb_s, loss / first[1]
        print(f"{contender.name:18} {contender.threads:7} {mb_s:7.0f} {ratio:7.1f}x {worse:14.3f}")


if __name__ == "__main__":
    main()

"""Read a GGUF file: checked header, lazy tensors, rows dequantized on demand by the `gguf` package."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from gguf.quants import dequantize
from numpy.typing import NDArray

from converters.errors import CheckpointError, UnsupportedError
from converters.gguf.header import KEYS_START, GgufTensor, Header, parse

__all__ = ["Gguf", "GgufTensor"]

_PIECE = 4 << 20
_REDO = "fetch the file again: `edge pull NAME`, or take another copy"


class Gguf:
    """An open GGUF file: `metadata` (plain Python values) and `tensors`. Reads are thread-safe."""

    def __init__(self, path: Path, file: BinaryIO, header: Header) -> None:
        self.path = path
        self.header = header
        self.version = header.version
        self.metadata: Mapping[str, Any] = MappingProxyType(header.metadata)
        self.tensors: Mapping[str, GgufTensor] = MappingProxyType(header.tensors)
        self._file = file

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read and check the header; raises what `converters.gguf.header.parse` raises."""
        try:
            file = path.open("rb")
        except OSError as error:
            raise CheckpointError(f"cannot open {path}: {error.strerror}", hint="check the path") from error
        try:
            return cls(path, file, parse(file, os.fstat(file.fileno()).st_size, path))
        except BaseException:
            file.close()
            raise

    def tensor(self, name: str) -> GgufTensor:
        """The tensor, or CheckpointError that names it."""
        try:
            return self.tensors[name]
        except KeyError:
            raise CheckpointError(f"{self.path}: tensor '{name}' is missing", hint=_REDO) from None

    def read(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
        """Rows [start, stop) of a tensor as float32 [stop - start, columns]; a vector is one row, returned flat.

        Leading axes beyond the second are counted as rows. Values are what ggml's own dequantizer computes
        (scale * code + minimum in float32, for example). UnsupportedError for a type that has no decoder.
        """
        tensor = self.tensor(name)
        rows = tensor.nbytes // tensor.row_bytes
        stop = rows if stop is None else stop
        if not 0 <= start <= stop <= rows:
            raise ValueError(f"rows {start}..{stop} of {rows} in {name}")
        if start == stop:
            return np.empty((0, tensor.shape[-1]) if len(tensor.shape) > 1 else 0, np.float32)
        data = bytearray((stop - start) * tensor.row_bytes)
        self._read_into(memoryview(data), tensor.offset + start * tensor.row_bytes, name)
        packed = np.frombuffer(data, np.uint8).reshape(stop - start, tensor.row_bytes)
        try:
            # A damaged scale may be infinite; who uses the values checks them.
            with np.errstate(over="ignore", invalid="ignore"):
                values = np.asarray(dequantize(packed, tensor.type), np.float32)
        except NotImplementedError as error:
            raise UnsupportedError(
                f"{self.path}: tensor '{name}' has the type {tensor.type.name}, which cannot be read back",
                hint="take the model's F16, Q8_0 or Q4_0 file instead",
            ) from error
        return values.reshape(-1) if len(tensor.shape) == 1 else values

    def stored(self, name: str) -> Iterator[bytes]:
        """The tensor's bytes as they lie in the file, in pieces of at most 4 MiB."""
        tensor = self.tensor(name)
        for start in range(0, tensor.nbytes, _PIECE):
            data = bytearray(min(_PIECE, tensor.nbytes - start))
            self._read_into(memoryview(data), tensor.offset + start, name)
            yield bytes(data)

    def stored_keys(self) -> bytes:
        """The metadata as it lies in the file."""
        data = bytearray(self.header.keys_end - KEYS_START)
        self._read_into(memoryview(data), KEYS_START, "the keys")
        return bytes(data)

    def _read_into(self, view: memoryview, at: int, name: str) -> None:
        while view:
            got = os.preadv(self._file.fileno(), [view], at)
            if got == 0:
                raise CheckpointError(f"{self.path}: file ends inside tensor '{name}'", hint=_REDO)
            view, at = view[got:], at + got

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

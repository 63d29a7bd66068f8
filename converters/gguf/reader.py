"""Read a GGUF file: bounded header, lazy tensors, rows dequantized on demand.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Every count and length in the header is
checked against what the file can hold before anything of that size is allocated, and all tensor data must lie
inside the file without overlap. Block formats are decoded by the `gguf` package.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize
from numpy.typing import NDArray

from converters.errors import CheckpointError, UnsupportedError

MAX_HEADER_BYTES = 1 << 28
"""A 200k-token vocabulary with merges takes about 10 MiB; whatever needs more is not a model's header."""
MAX_KEYS = 1 << 16
MAX_TENSORS = 1 << 18
MAX_NESTING = 4
_MAX_KEY_BYTES = (1 << 16) - 1
_MAX_DIMS = 4
_MAX_ALIGNMENT = 1 << 20
_REDO = "fetch the file again: `edge pull NAME`, or take another copy"

_STRING, _ARRAY, _BOOL = 8, 9, 7
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<B", 10: "<Q", 11: "<q", 12: "<d"}


@dataclass(frozen=True)
class GgufTensor:
    """One tensor. `shape` is in row-major order, (rows, columns): the reverse of the file's order.

    `offset` (bytes) counts from the start of the file; `row_bytes` is what one row of the last axis takes.
    """

    name: str
    type: GGMLQuantizationType
    shape: tuple[int, ...]
    offset: int
    nbytes: int
    row_bytes: int


class _Header:
    """A cursor over the start of the file that never asks for more than the file, or the limit, holds."""

    def __init__(self, fd: int, size: int, path: Path) -> None:
        self._file = open(fd, "rb", buffering=1 << 20, closefd=False)  # noqa: SIM115, PTH123 (closed by caller)
        self.position = 0
        self._end = min(size, MAX_HEADER_BYTES)
        self._path = path

    def bad(self, what: str) -> CheckpointError:
        return CheckpointError(f"{self._path}: {what}", hint=_REDO)

    def need(self, count: int, what: str) -> None:
        """Refuse a count whose bytes cannot be there, before anything is allocated for it."""
        if count > self._end - self.position:
            raise self.bad(f"{what} wants {count} bytes, only {self._end - self.position} can follow")

    def take(self, count: int, what: str) -> bytes:
        self.need(count, what)
        data = self._file.read(count)
        if len(data) != count:
            raise self.bad(f"file ends inside {what}")
        self.position += count
        return data

    def number(self, fmt: str, what: str) -> int | float:
        value: int | float = struct.unpack(fmt, self.take(struct.calcsize(fmt), what))[0]
        return value

    def u32(self, what: str) -> int:
        return int(self.number("<I", what))

    def u64(self, what: str) -> int:
        return int(self.number("<Q", what))

    def text(self, what: str) -> str:
        try:
            return self.take(self.u64(what), what).decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.bad(f"{what} is not UTF-8") from error

    def name(self, what: str) -> str:
        name = self.text(what)
        if not name or len(name) > _MAX_KEY_BYTES or not name.isprintable():
            raise self.bad(f"{what} {name[:40]!r} is no sane name")
        return name

    def value(self, kind: int, key: str, depth: int = 0) -> Any:
        what = f"key '{key}'"
        if kind == _BOOL:
            return bool(self.number("<B", what))
        if kind in _SCALARS:
            return self.number(_SCALARS[kind], what)
        if kind == _STRING:
            return self.text(what)
        if kind != _ARRAY:
            raise self.bad(f"{what} has the unknown type {kind}")
        if depth >= MAX_NESTING:
            raise self.bad(f"{what} nests arrays deeper than {MAX_NESTING}")
        item, count = self.u32(what), self.u64(what)
        if item in _SCALARS:
            dtype = np.dtype(_SCALARS[item])
            data = np.frombuffer(self.take(count * dtype.itemsize, what), dtype)
            return (data != 0).tolist() if item == _BOOL else data.tolist()
        # A string or an array costs at least its length field.
        self.need(count * 8, what)
        return [self.value(item, key, depth + 1) for _ in range(count)]

    def close(self) -> None:
        self._file.close()


class Gguf:
    """An open GGUF file: `metadata` (plain Python values) and `tensors`. Thread-safe; use as a context manager."""

    path: Path
    version: int
    metadata: Mapping[str, Any]
    tensors: Mapping[str, GgufTensor]

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read and check the header. Raises CheckpointError (damaged, hostile) or UnsupportedError (big-endian)."""
        try:
            fd = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except OSError as error:
            raise CheckpointError(f"cannot open {path}: {error.strerror}", hint="check the path") from error
        self = cls()
        self.path, self._fd, self._closing = path, fd, threading.Lock()
        header = _Header(fd, os.fstat(fd).st_size, path)
        try:
            self._read_header(header, os.fstat(fd).st_size)
        except BaseException:
            self.close()
            raise
        finally:
            header.close()
        return self

    def _read_header(self, header: _Header, size: int) -> None:
        if header.take(4, "the magic") != b"GGUF":
            raise header.bad("not a GGUF file (its first four bytes are not 'GGUF')")
        self.version = header.u32("the version")
        if self.version not in (2, 3):
            swapped = int.from_bytes(self.version.to_bytes(4, "little"), "big") in (2, 3)
            what = "big-endian GGUF" if swapped else f"GGUF version {self.version}"
            raise UnsupportedError(f"{self.path}: {what}", hint="convert it to a little-endian GGUF of version 3")
        n_tensors, n_keys = header.u64("the tensor count"), header.u64("the key count")
        if n_keys > MAX_KEYS or n_tensors > MAX_TENSORS:
            raise header.bad(f"claims {n_keys} keys and {n_tensors} tensors")
        metadata: dict[str, Any] = {}
        for _ in range(n_keys):
            key = header.name("a key's name")
            if key in metadata:
                raise header.bad(f"key '{key}' is there twice")
            metadata[key] = header.value(header.u32(f"key '{key}'"), key)
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 0 < alignment <= _MAX_ALIGNMENT or alignment & (alignment - 1):
            raise header.bad(f"key 'general.alignment' is {alignment!r}, no power of two")
        raw = [self._tensor_entry(header) for _ in range(n_tensors)]
        data_start = -(-header.position // alignment) * alignment
        self.metadata = MappingProxyType(metadata)
        self.tensors = MappingProxyType(_place(raw, data_start, alignment, size, header))

    @staticmethod
    def _tensor_entry(header: _Header) -> GgufTensor:
        """A tensor's header entry; its offset still counts from the start of the data."""
        name = header.name("a tensor's name")
        what = f"tensor '{name}'"
        n_dims = header.u32(what)
        if not 1 <= n_dims <= _MAX_DIMS:
            raise header.bad(f"{what} has {n_dims} dimensions")
        dims = [header.u64(what) for _ in range(n_dims)]
        if 0 in dims:
            raise header.bad(f"{what} has the empty shape {dims}")
        kind = header.u32(what)
        try:
            ggml_type = GGMLQuantizationType(kind)
        except ValueError as error:
            raise header.bad(f"{what} has the unknown type {kind}") from error
        block, block_bytes = GGML_QUANT_SIZES[ggml_type]
        if dims[0] % block:
            raise header.bad(f"{what}: {dims[0]} columns do not fill {ggml_type.name} blocks of {block}")
        row_bytes = dims[0] // block * block_bytes
        nbytes = row_bytes
        for n in dims[1:]:
            nbytes *= n
        return GgufTensor(name, ggml_type, tuple(reversed(dims)), header.u64(what), nbytes, row_bytes)

    def tensor(self, name: str) -> GgufTensor:
        """The tensor, or CheckpointError that names it."""
        try:
            return self.tensors[name]
        except KeyError:
            raise CheckpointError(f"{self.path}: tensor '{name}' is missing", hint=_REDO) from None

    def read(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
        """Rows [start, stop) of a tensor as float32 [stop - start, columns]; a vector is one row, returned flat.

        Values are bit for bit what ggml's dequantizer computes (scale * code + minimum in float32).
        """
        tensor = self.tensor(name)
        rows = tensor.nbytes // tensor.row_bytes
        stop = rows if stop is None else stop
        if not 0 <= start <= stop <= rows:
            raise ValueError(f"rows {start}..{stop} of {rows} in {name}")
        data = np.empty((stop - start, tensor.row_bytes), np.uint8)
        view, at = memoryview(data).cast("B"), tensor.offset + start * tensor.row_bytes
        while view:
            got = os.preadv(self._fd, [view], at)
            if got == 0:
                raise CheckpointError(f"{self.path}: file ends inside tensor '{name}'", hint=_REDO)
            view, at = view[got:], at + got
        try:
            values = dequantize(data, tensor.type)
        except NotImplementedError as error:
            raise UnsupportedError(
                f"{self.path}: tensor '{name}' has the type {tensor.type.name}, which cannot be read back",
                hint="take the model's F16, Q8_0 or Q4_0 file instead",
            ) from error
        values = np.asarray(values, np.float32)
        return values.reshape(-1) if len(tensor.shape) == 1 else values

    def close(self) -> None:
        with self._closing:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _place(
    raw: list[GgufTensor], data_start: int, alignment: int, size: int, header: _Header
) -> dict[str, GgufTensor]:
    """Tensors with absolute offsets: aligned, inside the file, named once, none over another."""
    placed: dict[str, GgufTensor] = {}
    end, last = data_start, "the header"
    for t in sorted(raw, key=lambda t: (t.offset, t.name)):
        offset = data_start + t.offset
        if t.name in placed:
            raise header.bad(f"tensor '{t.name}' is there twice")
        if t.offset % alignment:
            raise header.bad(f"tensor '{t.name}' starts at {t.offset}, not aligned to {alignment}")
        if offset < end:
            raise header.bad(f"tensor '{t.name}' overlaps {last}")
        if offset + t.nbytes > size:
            raise header.bad(
                f"tensor '{t.name}' ends at byte {offset + t.nbytes}, the file has only {size} (truncated?)"
            )
        placed[t.name] = GgufTensor(t.name, t.type, t.shape, offset, t.nbytes, t.row_bytes)
        end, last = offset + t.nbytes, f"tensor '{t.name}'"
    return {t.name: placed[t.name] for t in raw}

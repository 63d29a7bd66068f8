"""The header of a GGUF file: keys and tensor entries, with nothing allocated that the file cannot hold.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Every count and length is checked against the
bytes that can still follow, and all tensor data must lie inside the file, aligned and without overlap.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from converters.errors import CheckpointError, UnsupportedError

# The largest vocabulary in use (262k tokens with 515k merges) makes 15 MiB and 1.3 million items.
MAX_HEADER_BYTES = 1 << 26
MAX_ITEMS = 1 << 22
MAX_KEYS = 1 << 16
MAX_TENSORS = 1 << 18
MAX_NESTING = 4
_MAX_NAME = 1 << 16
_MAX_DIMS = 4
_MAX_ALIGNMENT = 1 << 20
KEYS_START = 24
"""Magic, version, tensor count and key count lie before."""
_DEFAULT_ALIGNMENT = 32
_REDO = "fetch the file again: `edge pull NAME`, or take another copy"

_BOOL, _STRING, _ARRAY = 7, 8, 9
_SCALARS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<B",
    10: "<Q",
    11: "<q",
    12: "<d",
}


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


@dataclass(frozen=True)
class Header:
    """`metadata` holds plain Python values (lists for arrays); `tensors` are in the order of the file's list.

    The keys as they are in the file: its bytes from KEYS_START to `keys_end`.
    """

    version: int
    metadata: dict[str, Any]
    tensors: dict[str, GgufTensor]
    keys_end: int
    alignment: int


def parse(file: BinaryIO, size: int, path: Path) -> Header:
    """Read the header of the `size` bytes in `file`. `path` is for messages.

    Raises CheckpointError (damaged or hostile; names the key or tensor), UnsupportedError (version, big-endian).
    """
    cursor = _Cursor(file, min(size, MAX_HEADER_BYTES), path)
    if cursor.take(4, "the magic") != b"GGUF":
        raise cursor.bad("not a GGUF file (its first four bytes are not 'GGUF')")
    version = cursor.u32("the version")
    if version not in (2, 3):
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big") in (2, 3)
        what = "big-endian GGUF" if swapped else f"GGUF version {version}"
        raise UnsupportedError(f"{path}: {what}", hint="convert it to a little-endian GGUF of version 3")
    n_tensors, n_keys = cursor.u64("the tensor count"), cursor.u64("the key count")
    if n_keys > MAX_KEYS or n_tensors > MAX_TENSORS:
        raise cursor.bad(f"claims {n_keys} keys and {n_tensors} tensors")
    metadata: dict[str, Any] = {}
    for _ in range(n_keys):
        key = cursor.name("a key's name")
        if key in metadata:
            raise cursor.bad(f"key '{key}' is there twice")
        metadata[key] = _value(cursor, cursor.u32(f"key '{key}'"), key)
    keys_end = cursor.position
    alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
    if type(alignment) is not int or not 0 < alignment <= _MAX_ALIGNMENT or alignment & (alignment - 1):
        raise cursor.bad(f"key 'general.alignment' is {alignment!r}, no power of two")
    entries = [_tensor_entry(cursor) for _ in range(n_tensors)]
    data_start = -(-cursor.position // alignment) * alignment
    placed = _placed(cursor, entries, data_start, alignment, size)
    return Header(version, metadata, placed, keys_end, alignment)


class _Cursor:
    """Reads forward and never asks for more than can follow."""

    def __init__(self, file: BinaryIO, end: int, path: Path) -> None:
        self.position = 0
        self.items = 0
        self._file, self._end, self._path = file, end, path

    def bad(self, what: str) -> CheckpointError:
        return CheckpointError(f"{self._path}: {what}", hint=_REDO)

    def need(self, count: int, what: str) -> None:
        left = self._end - self.position
        if count > left:
            raise self.bad(f"{what} wants {count} bytes where {left} can follow (truncated?)")

    def take(self, count: int, what: str) -> bytes:
        self.need(count, what)
        data = self._file.read(count)
        if len(data) != count:
            raise self.bad(f"the file ends inside {what}")
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
        if not name or len(name) > _MAX_NAME or not name.isprintable():
            raise self.bad(f"{what} is {name[:40]!r}")
        return name


def _value(cursor: _Cursor, kind: int, key: str, depth: int = 0) -> Any:
    what = f"key '{key}'"
    if kind == _BOOL:
        return bool(cursor.number("<B", what))
    if kind in _SCALARS:
        return cursor.number(_SCALARS[kind], what)
    if kind == _STRING:
        return cursor.text(what)
    if kind != _ARRAY:
        raise cursor.bad(f"{what} has the unknown type {kind}")
    if depth >= MAX_NESTING:
        raise cursor.bad(f"{what} nests arrays deeper than {MAX_NESTING}")
    item, count = cursor.u32(what), cursor.u64(what)
    cursor.items += count
    if cursor.items > MAX_ITEMS:
        raise cursor.bad(f"{what}: more than {MAX_ITEMS} array items")
    if item in _SCALARS:
        dtype = np.dtype(_SCALARS[item])
        data = np.frombuffer(cursor.take(count * dtype.itemsize, what), dtype)
        return (data != 0).tolist() if item == _BOOL else data.tolist()
    # A string costs at least its length field, an array its type and length.
    cursor.need(count * 8, what)
    return [_value(cursor, item, key, depth + 1) for _ in range(count)]


def _tensor_entry(cursor: _Cursor) -> GgufTensor:
    """A tensor's entry; its offset still counts from the start of the data."""
    name = cursor.name("a tensor's name")
    what = f"tensor '{name}'"
    n_dims = cursor.u32(what)
    if not 1 <= n_dims <= _MAX_DIMS:
        raise cursor.bad(f"{what} has {n_dims} dimensions")
    dims = [cursor.u64(what) for _ in range(n_dims)]
    if 0 in dims:
        raise cursor.bad(f"{what} has the empty shape {dims}")
    kind = cursor.u32(what)
    try:
        ggml_type = GGMLQuantizationType(kind)
    except ValueError as error:
        raise cursor.bad(f"{what} has the unknown type {kind}") from error
    block, block_bytes = GGML_QUANT_SIZES[ggml_type]
    if dims[0] % block:
        raise cursor.bad(f"{what}: {dims[0]} columns do not fill {ggml_type.name} blocks of {block}")
    row_bytes = dims[0] // block * block_bytes
    nbytes = row_bytes
    for n in dims[1:]:
        nbytes *= n
    return GgufTensor(name, ggml_type, tuple(reversed(dims)), cursor.u64(what), nbytes, row_bytes)


def _placed(
    cursor: _Cursor, entries: list[GgufTensor], data_start: int, alignment: int, size: int
) -> dict[str, GgufTensor]:
    """The tensors with offsets from the start of the file."""
    placed: dict[str, GgufTensor] = {}
    end, last = data_start, "the header"
    for t in sorted(entries, key=lambda t: t.offset):
        offset = data_start + t.offset
        if t.name in placed:
            raise cursor.bad(f"tensor '{t.name}' is there twice")
        if t.offset % alignment:
            raise cursor.bad(f"tensor '{t.name}' starts at {t.offset}, not aligned to {alignment}")
        if offset < end:
            raise cursor.bad(f"tensor '{t.name}' overlaps {last}")
        end, last = offset + t.nbytes, f"tensor '{t.name}'"
        if end > size:
            raise cursor.bad(f"tensor '{t.name}' ends at byte {end}, the file at {size} (truncated?)")
        placed[t.name] = replace(t, offset=offset)
    return {t.name: placed[t.name] for t in entries}

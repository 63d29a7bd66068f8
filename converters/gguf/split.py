"""One GGUF as several, as llama.cpp's own gguf-split cuts them: for places that take no large file.

Between tensors, never within one: a shard is larger than asked for where one of its tensors is. The first shard has
all keys, byte for byte, each has the three that llama.cpp counts shards by (tools/gguf-split/gguf-split.cpp).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from converters.errors import UnsupportedError
from converters.gguf.header import GgufTensor
from converters.gguf.reader import Gguf

MAX_SHARDS = 65_535
"""They are counted in 16 bits."""
_UINT16, _UINT32, _INT32 = 2, 4, 5


def shard_name(stem: str, index: int, count: int) -> str:
    """What llama.cpp calls shard `index` (from 0) of `count`."""
    return f"{stem}-{index + 1:05d}-of-{count:05d}.gguf"


def split(
    source: Path,
    directory: Path,
    stem: str,
    *,
    shard_bytes: int,
    advance: Callable[[int], None] = lambda count: None,
) -> list[Path]:
    """Write `source` into `directory` as shards of about `shard_bytes` of tensor data; their paths in order.

    `advance` is told the bytes of tensor data as they are copied. Nothing is held but a piece of 4 MiB and the header.
    Raises what `Gguf.open` raises, and UnsupportedError for a file that is a shard already.
    """
    with Gguf.open(source) as file:
        if "split.count" in file.metadata:
            raise UnsupportedError(
                f"{source} is one shard of a model already", hint="merge them first: llama-gguf-split --merge"
            )
        shards = assign(list(file.tensors.values()), shard_bytes)
        if len(shards) > MAX_SHARDS:
            raise UnsupportedError(f"{source} would be {len(shards)} shards", hint="larger shards")
        paths = [directory / shard_name(stem, i, len(shards)) for i in range(len(shards))]
        for i, (path, tensors) in enumerate(zip(paths, shards, strict=True)):
            keys, count = _keys(file, i, len(shards))
            with path.open("xb") as out:
                out.write(struct.pack("<4sIQQ", b"GGUF", file.version, len(tensors), count))
                out.write(keys)
                _write_tensors(file, out, tensors, advance)
    return paths


def assign(tensors: list[GgufTensor], shard_bytes: int) -> list[list[GgufTensor]]:
    """Which shard each tensor goes to, in the order of the file: a new one where the next does not fit."""
    shards: list[list[GgufTensor]] = [[]]
    filled = 0
    for tensor in tensors:
        if shards[-1] and filled + tensor.nbytes > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(tensor)
        filled += tensor.nbytes
    return shards


def _keys(file: Gguf, index: int, count: int) -> tuple[bytes, int]:
    """The keys of a shard as bytes, and how many they are."""
    own = (
        _key("split.no", _UINT16, "<H", index)
        + _key("split.count", _UINT16, "<H", count)
        + _key("split.tensors.count", _INT32, "<i", len(file.tensors))
    )
    if index == 0:
        return file.stored_keys() + own, len(file.metadata) + 3
    if "general.alignment" in file.metadata:
        return _key("general.alignment", _UINT32, "<I", file.header.alignment) + own, 4
    return own, 3


def _key(name: str, kind: int, form: str, value: int) -> bytes:
    return struct.pack("<Q", len(name)) + name.encode() + struct.pack("<I", kind) + struct.pack(form, value)


def _write_tensors(
    file: Gguf, out: BinaryIO, tensors: list[GgufTensor], advance: Callable[[int], None]
) -> None:
    alignment = file.header.alignment
    offset = 0
    for tensor in tensors:
        name = tensor.name.encode()
        out.write(struct.pack("<Q", len(name)) + name + struct.pack("<I", len(tensor.shape)))
        out.write(struct.pack(f"<{len(tensor.shape)}Q", *reversed(tensor.shape)))
        out.write(struct.pack("<IQ", tensor.type.value, offset))
        offset += _padded(tensor.nbytes, alignment)
    _pad(out, alignment)
    for tensor in tensors:
        for piece in file.stored(tensor.name):
            out.write(piece)
            advance(len(piece))
        _pad(out, alignment)


def _pad(out: BinaryIO, alignment: int) -> None:
    out.write(bytes(_padded(out.tell(), alignment) - out.tell()))


def _padded(n: int, alignment: int) -> int:
    return -(-n // alignment) * alignment

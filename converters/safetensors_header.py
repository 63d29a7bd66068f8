"""The header of one safetensors file, checked in full before any tensor byte is read.

Layout (github.com/huggingface/safetensors, README "Format"): uint64 little-endian header length n; n bytes
of JSON that starts with "{"; then the data, which the tensors' [begin, end) offsets cover without gap or
overlap. The format allows headers of 100 MB (MAX_HEADER_SIZE in safetensors/src/tensor.rs); here the limit is
MAX_BYTES, enough for 200 000 tensors, so that a hostile one cannot take the memory.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import ml_dtypes
import numpy as np

from converters.errors import CheckpointError
from converters.strict_json import DAMAGED, MAX_BYTES, parse_object, shown

DtypeName = Literal["BF16", "F16", "F32", "F64"]

DTYPES: dict[DtypeName, np.dtype[np.generic]] = {
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
}

COUNTED = "embeddings.position_ids"
"""End of the name of a buffer 0, 1, 2, .. that older BERTs were saved with, in I64; no weight, and nothing reads it."""
MAX_AXES = 8
MAX_NAME = 1024


@dataclass(frozen=True)
class TensorInfo:
    """Where one tensor lies: `nbytes` bytes from byte `offset` of `file`, row-major, little-endian."""

    name: str
    dtype: DtypeName
    shape: tuple[int, ...]
    file: Path
    offset: int
    nbytes: int

    @property
    def rows(self) -> int:
        """Length of the first axis; a scalar counts as one row."""
        return self.shape[0] if self.shape else 1


def read_header(descriptor: int, file: Path) -> list[TensorInfo]:
    """Every tensor of the safetensors file open as `descriptor`, in file order, without those COUNTED.

    Raises CheckpointError that names `file`, and the tensor where one is at fault. The length that the file
    claims for its header is held against the file's size and the limit before it is allocated.
    """
    size = os.fstat(descriptor).st_size
    if size < 8:
        raise _bad(file, f"{size} bytes is too short for a safetensors file")
    prefix = bytearray(8)
    read_into(descriptor, memoryview(prefix), 0, file)
    length = int.from_bytes(prefix, "little")
    if length > MAX_BYTES:
        raise _bad(file, f"header length {length} is over the limit of {MAX_BYTES}")
    if length > size - 8:
        raise _bad(file, f"header length {length} reaches beyond the file's {size} bytes")
    raw = bytearray(length)
    read_into(descriptor, memoryview(raw), 8, file)
    if not raw.startswith(b"{"):
        raise _bad(file, "header does not start with '{'")
    header = parse_object(raw, file.name)
    _check_metadata(header.pop("__metadata__", {}), file)
    tensors = [_tensor(name, entry, file, 8 + length) for name, entry in header.items()]
    if not tensors:
        raise _bad(file, "holds no tensor")
    tensors.sort(key=lambda t: (t.offset, t.offset + t.nbytes))
    _check_cover(tensors, file, 8 + length, size)
    return [t for t in tensors if not (t.name.endswith(COUNTED) and header[t.name]["dtype"] == "I64")]


def read_into(descriptor: int, view: memoryview, offset: int, file: Path) -> None:
    """Fill `view`, of bytes, from byte `offset`. CheckpointError if the file ends first or fails."""
    done = 0
    while done < len(view):
        try:
            count = os.preadv(descriptor, [view[done:]], offset + done)
        except OSError as error:
            raise CheckpointError(
                f"{file.name}: cannot be read at byte {offset + done}: {error.strerror}",
                hint="check the disk and the file's permissions, then run the command again",
            ) from error
        if count == 0:
            raise _bad(file, f"ends at byte {offset + done}, {len(view) - done} bytes early")
        done += count


def _tensor(name: str, entry: Any, file: Path, base: int) -> TensorInfo:
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise _bad(file, f"tensor name {shown(name)} is empty, too long or not printable")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _bad(file, f"tensor {shown(name)}: header entry is not dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if dtype == "I64" and name.endswith(COUNTED):
        dtype = "F64"  # as wide
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise CheckpointError(
            f"{file.name}: tensor {shown(name)} has dtype {shown(dtype)}, not one of {', '.join(DTYPES)}",
            hint="re-save the checkpoint in bfloat16, float16 or float32 (quantized ones cannot be read)",
        )
    if not _naturals(shape) or len(shape) > MAX_AXES:
        raise _bad(
            file, f"tensor {shown(name)}: shape {shown(shape)} is not up to {MAX_AXES} natural numbers"
        )
    if not _naturals(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _bad(file, f"tensor {shown(name)}: data_offsets {shown(offsets)} are not [begin, end]")
    if math.prod(n for n in shape if n) >= 2**56:
        # Also when another axis is 0 and no byte is taken: numpy refuses to make such an array.
        raise _bad(file, f"tensor {shown(name)}: shape {shape} is absurd")
    begin, end = offsets
    expected = math.prod(shape) * DTYPES[dtype].itemsize
    if end - begin != expected:
        raise _bad(
            file, f"tensor {shown(name)}: {dtype} {shape} takes {expected} bytes, offsets give {end - begin}"
        )
    return TensorInfo(name, dtype, tuple(shape), file, base + begin, end - begin)


def _naturals(value: Any) -> bool:
    # bool is an int to Python; 2**63 is where an offset stops being one for any file system.
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 2**63 for n in value)


def _check_metadata(metadata: Any, file: Path) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _bad(file, "__metadata__ is not a map of strings")


def _check_cover(tensors: list[TensorInfo], file: Path, base: int, size: int) -> None:
    at, before = base, "the header"
    for tensor in tensors:
        if tensor.offset < at:
            raise _bad(file, f"tensor {shown(tensor.name)} overlaps {before} by {at - tensor.offset} bytes")
        if tensor.offset > at:
            raise _bad(file, f"gap of {tensor.offset - at} bytes before tensor {shown(tensor.name)}")
        at, before = tensor.offset + tensor.nbytes, f"tensor {shown(tensor.name)}"
        if at > size:
            raise _bad(file, f"truncated: tensor {shown(tensor.name)} ends at byte {at}, the file at {size}")
    if at < size:
        raise _bad(file, f"{size - at} bytes after {before} belong to no tensor")


def _bad(file: Path, what: str) -> CheckpointError:
    return CheckpointError(f"{file.name}: {what}", hint=DAMAGED)

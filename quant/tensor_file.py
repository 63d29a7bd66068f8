"""Write a safetensors file in chunks, and a checkpoint anew with some of its tensors replaced."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.checkpoint import Checkpoint

SHRINK = "shrink.json"
"""How a checkpoint was made smaller; every step writes its own."""
_WEIGHTS = "model.safetensors"
_WEIGHT_FILES = (".safetensors", ".safetensors.index.json", ".bin")
_BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2}
_CHUNK = 1 << 24

Shapes = Mapping[str, tuple[str, tuple[int, ...]]]
"""By tensor: the dtype as safetensors calls it, and the shape."""


def write_tensors(file: Path, shapes: Shapes, rows: Callable[[str], Iterator[NDArray[Any]]]) -> None:
    """`rows(name)` gives a tensor's rows in order, in its dtype (bfloat16 as ml_dtypes.bfloat16)."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, (dtype, shape) in shapes.items():
        size = math.prod(shape) * _BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with file.open("xb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for name in shapes:
            for chunk in rows(name):
                out.write(np.ascontiguousarray(chunk).reshape(-1).view(np.uint8).data)
        written = out.tell() - 8 - len(text)
    if written != at:
        raise ValueError(f"{file.name}: {written} bytes written, the header says {at}")


def rewrite(checkpoint: Checkpoint, directory: Path, replaced: Callable[[str], NDArray[Any] | None]) -> None:
    """The checkpoint in the folder `directory`, which exists: side files as they are, every tensor in one file.

    `replaced`: the values [rows, ...] that a tensor gets, of its own dtype and shape, or None to keep it.
    """
    copy_side_files(checkpoint.directory, directory)
    tensors = list(checkpoint.tensors.values())

    def rows(name: str) -> Iterator[NDArray[Any]]:
        changed = replaced(name)
        if changed is not None:
            yield changed
            return
        info = checkpoint.tensors[name]
        step = max(1, _CHUNK * info.rows // max(info.nbytes, 1))
        for start in range(0, info.rows, step):
            yield checkpoint.read(name, start, min(start + step, info.rows))

    write_tensors(directory / _WEIGHTS, {t.name: (t.dtype, t.shape) for t in tensors}, rows)


def copy_side_files(source: Path, directory: Path) -> None:
    """Every plain file but weights and the record of an earlier step."""
    for file in sorted(source.iterdir()):
        if file.is_file() and file.name != SHRINK and not file.name.endswith(_WEIGHT_FILES):
            shutil.copyfile(file, directory / file.name)

"""Codes that were chosen ahead of the one streamed pass, on disk: what a calibrated recipe encodes from.

One `<weight>.npy` a weight: its rows packed as ggml blocks (`quant.blocks.to_gguf`), uint8 [rows, bytes a row].
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from converters.decoder import Weight
from converters.errors import BundleError
from quant.blocks import BLOCK, BlockFormat, Blocks, from_gguf, to_gguf


class CodeStore:
    """A directory of codes. Rows are read by position, so memory does not grow with the weight."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def path(self, weight: Weight) -> Path:
        return self.directory / f"{weight.name}.npy"

    def __contains__(self, weight: Weight) -> bool:
        return self.path(weight).is_file()

    def put(self, weight: Weight, blocks: Blocks) -> None:
        """Store all rows of `weight`; whole or not at all."""
        path = self.path(weight)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            npy.write_array(file, to_gguf(blocks), allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)

    def digest(self, weights: Iterable[Weight]) -> str:
        """SHA-256 over the rows of `weights`, in that order."""
        total = hashlib.sha256()
        for weight in weights:
            with self.path(weight).open("rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
        return total.hexdigest()

    def rows(self, weight: Weight, fmt: BlockFormat, start: int, stop: int) -> Blocks:
        """Rows [start, stop) of `weight`. Raises BundleError when the file does not hold such rows."""
        width = weight.shape[1] // BLOCK * fmt.gguf_bytes
        try:
            with self.path(weight).open("rb") as file:
                if npy.read_magic(file) != (1, 0):
                    raise ValueError("of another version")
                shape, _, dtype = npy.read_array_header_1_0(file)
                if shape != (weight.rows, width) or dtype != np.uint8:
                    raise ValueError(f"it holds {dtype} {shape}, not uint8 {(weight.rows, width)}")
                data = np.empty((stop - start, width), np.uint8)
                file.seek(start * width, os.SEEK_CUR)
                if file.readinto(data.data) != data.nbytes:
                    raise ValueError("it is cut short")
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise BundleError(
                f"the calibrated codes {self.path(weight)} cannot be used: {why}",
                hint=f"remove {self.directory} and calibrate again",
            ) from None
        return from_gguf(fmt, data)

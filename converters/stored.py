"""Artifacts read back for the proof: one reader a format, behind `converters.verify.Stored`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters import gguf
from converters.decoder import Decoder, Weight
from converters.onnx.reader import OnnxReader
from converters.verify import Stored
from converters.writer import Storages
from quant.blocks import Blocks, dequantize


class StoredOnnx(OnnxReader):
    """An ONNX variant; the rotary rows are looked up as the graph does."""

    def __init__(self, directory: Path, decoder: Decoder, recipe: Storages) -> None:
        super().__init__(directory, decoder, recipe)
        self._rope = decoder.rope

    def rows(self, weight: Weight, start: int, stop: int) -> NDArray[np.float32]:
        """Dequantized rows [start, stop) of `weight`."""
        rows = self.stored_rows(weight, start, stop)
        return dequantize(rows) if isinstance(rows, Blocks) else rows.astype(np.float32)

    def rope_table(self, total_length: int, positions: NDArray[np.int64]) -> tuple[Any, Any]:
        cos, sin = self.rotary_tables()
        long = self._rope.is_longrope and total_length > self._rope.original_context
        rows = positions + (self._rope.original_context if long else 0)
        rows = rows[rows < len(cos)]
        return cos[rows], sin[rows]


def open_stored(format_name: str, path: Path, decoder: Decoder, recipe: Storages) -> Stored:
    """The reader for `format_name` ("onnx" or "gguf") on `path`. Raises BundleError when it is damaged."""
    readers: dict[str, Callable[[Path, Decoder, Storages], Stored]] = {
        "onnx": StoredOnnx,
        "gguf": gguf.open_stored,
    }
    return readers[format_name](path, decoder, recipe)

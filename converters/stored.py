"""Artifacts read back for the proof: one reader a format, behind `converters.verify.Stored`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters import gguf
from converters.decoder import Decoder, Weight
from converters.errors import BundleError
from converters.onnx.facts import config_facts, graph_facts, table_switch
from converters.onnx.genai_config import CONFIG_FILE
from converters.onnx.reader import OnnxReader
from converters.verify import Fact, Stored
from converters.writer import Storages
from quant.blocks import Blocks, dequantize


class StoredOnnx(OnnxReader):
    """An ONNX variant; the rotary rows are looked up as the graph does."""

    def __init__(self, directory: Path, decoder: Decoder, recipe: Storages) -> None:
        super().__init__(directory, decoder, recipe)
        self._decoder = decoder
        self._config = directory / CONFIG_FILE

    def rows(self, weight: Weight, start: int, stop: int) -> NDArray[np.float32]:
        """Dequantized rows [start, stop) of `weight`."""
        rows = self.stored_rows(weight, start, stop)
        return dequantize(rows) if isinstance(rows, Blocks) else rows.astype(np.float32)

    def rope_table(self, total_length: int, positions: NDArray[np.int64]) -> tuple[Any, Any]:
        cos, sin = self.rotary_tables()
        switch = table_switch(self.graph)
        rows = positions + (switch[1] if switch is not None and total_length > switch[0] else 0)
        rows = rows[(rows >= 0) & (rows < len(cos))]
        return cos[rows], sin[rows]

    def facts(self, context_length: int) -> Iterator[Fact]:
        """Constants of the graph and of genai_config.json."""
        try:
            config = json.loads(self._config.read_bytes())
        except (FileNotFoundError, ValueError, RecursionError) as error:
            raise BundleError(
                f"{self._config} cannot be read: {error}", hint="convert the checkpoint again"
            ) from None
        yield from config_facts(config, self._decoder, context_length)
        yield from graph_facts(self.graph, self._decoder, context_length)


def open_stored(format_name: str, path: Path, decoder: Decoder, recipe: Storages) -> Stored:
    """The reader for `format_name` ("onnx" or "gguf") on `path`. Raises BundleError when it is damaged."""
    readers: dict[str, Callable[[Path, Decoder, Storages], Stored]] = {
        "onnx": StoredOnnx,
        "gguf": gguf.open_stored,
    }
    return readers[format_name](path, decoder, recipe)

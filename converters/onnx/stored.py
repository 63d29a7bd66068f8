"""An ONNX variant read back for the proof, behind `converters.verify.Stored`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.decoder import Decoder, Weight
from converters.errors import BundleError
from converters.hybrid import HybridDecoder
from converters.onnx.facts import config_facts, graph_facts, table_switch
from converters.onnx.genai_config import CONFIG_FILE, GRAPH_FILE
from converters.onnx.hybrid_facts import hybrid_config_facts, hybrid_graph_facts
from converters.onnx.layout import DATA_FILE
from converters.onnx.reader import OnnxReader
from converters.onnx.tensors import stored_weights
from converters.verify import Fact
from converters.writer import Storages
from quant.blocks import Blocks, dequantize


class StoredWeights(OnnxReader):
    """Dequantized weights of any variant of this room."""

    def rows(self, weight: Weight, start: int, stop: int) -> NDArray[np.float32]:
        """Dequantized rows [start, stop) of `weight`."""
        rows = self.stored_rows(weight, start, stop)
        return dequantize(rows) if isinstance(rows, Blocks) else rows.astype(np.float32)


class StoredOnnx(StoredWeights):
    """The variant for the CPU; the rotary rows are looked up as the graph does."""

    def __init__(self, directory: Path, decoder: Decoder, recipe: Storages) -> None:
        super().__init__(directory, stored_weights(decoder, recipe), [GRAPH_FILE], [DATA_FILE])
        self._decoder = decoder
        self._config = directory / CONFIG_FILE

    def rope_table(self, total_length: int, positions: NDArray[np.int64]) -> tuple[Any, Any]:
        if not self._decoder.rope.dim:
            none = np.empty((len(positions), 0), np.float32)
            return none, none
        cos, sin = self.rotary_tables()
        switch = table_switch(self.graphs[GRAPH_FILE])
        rows = positions + (switch[1] if switch is not None and total_length > switch[0] else 0)
        rows = rows[(rows >= 0) & (rows < len(cos))]
        return cos[rows], sin[rows]

    def facts(self, context_length: int) -> Iterator[Fact]:
        """Constants of the graph and of genai_config.json."""
        if isinstance(self._decoder, HybridDecoder):
            yield from hybrid_config_facts(read_config(self._config), self._decoder, context_length)
            yield from hybrid_graph_facts(self.graphs[GRAPH_FILE], self._decoder, context_length)
            return
        yield from config_facts(read_config(self._config), self._decoder, context_length)
        yield from graph_facts(self.graphs[GRAPH_FILE], self._decoder, context_length)


def read_config(file: Path) -> dict[str, Any]:
    """genai_config.json. BundleError when it is missing or no JSON."""
    try:
        config: dict[str, Any] = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{file} cannot be read: {error}", hint="convert the checkpoint again") from None
    return config


def open_stored(path: Path, decoder: Decoder, recipe: Storages) -> StoredOnnx:
    return StoredOnnx(path, decoder, recipe)

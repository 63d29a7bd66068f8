"""An NPU variant read back for the proof, behind `converters.verify.Stored`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.decoder import Decoder
from converters.onnx.genai_config import CONFIG_FILE
from converters.onnx.npu.config import STAGES
from converters.onnx.npu.facts import npu_facts
from converters.onnx.npu.grid_facts import grid_facts
from converters.onnx.npu.layout import HEAD_DATA, LAYERS_DATA, plan
from converters.onnx.npu.qdq import RANGES_FILE
from converters.onnx.stored import StoredWeights, read_config
from converters.verify import Fact
from converters.writer import Storages


class StoredNpu(StoredWeights):
    """Both NPU stages must name the same bytes, which the reader checks."""

    def __init__(self, directory: Path, decoder: Decoder, recipe: Storages) -> None:
        files = plan(decoder, recipe, 1)  # what is stored does not depend on the context
        stored = (*files.head.stored, *files.layers.stored)
        super().__init__(directory, stored, [f"{s}.onnx" for s in STAGES], [HEAD_DATA, LAYERS_DATA])
        self._decoder, self._layers = decoder, files.layers
        self._config, self._ranges = directory / CONFIG_FILE, directory / RANGES_FILE
        self._rounded = recipe.activations == "u16"

    def rope_table(self, total_length: int, positions: NDArray[np.int64]) -> tuple[Any, Any]:
        """One table, whatever the length: a context in which LongRoPE switches is refused."""
        del total_length
        cos, sin = self.rotary_tables()
        rows = positions[(positions >= 0) & (positions < len(cos))]
        return cos[rows], sin[rows]

    def facts(self, context_length: int) -> Iterator[Fact]:
        yield from npu_facts(self.graphs, read_config(self._config), self._decoder, context_length)
        if self._rounded:
            ranges = read_config(self._ranges)
            yield from grid_facts(self.graphs, ranges, self._decoder, self._layers)


def open_stored(path: Path, decoder: Decoder, recipe: Storages) -> StoredNpu:
    return StoredNpu(path, decoder, recipe)

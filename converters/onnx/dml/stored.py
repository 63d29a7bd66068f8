"""A DirectML variant read back for the proof, behind `converters.verify.Stored`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.decoder import Decoder
from converters.onnx.dml.facts import graph_facts, settings_facts
from converters.onnx.dml.layout import plan, zero_point_rows
from converters.onnx.genai_config import CONFIG_FILE, GRAPH_FILE
from converters.onnx.layout import DATA_FILE
from converters.onnx.stored import StoredWeights, read_config
from converters.verify import Fact
from converters.writer import Storages


class StoredDml(StoredWeights):
    """The facts include the zero points, which are no weight's."""

    def __init__(self, directory: Path, decoder: Decoder, recipe: Storages) -> None:
        self._layout = plan(decoder, recipe, 1)  # what is stored does not depend on the context
        super().__init__(directory, self._layout.stored, [GRAPH_FILE], [DATA_FILE])
        self._decoder = decoder
        self._config = directory / CONFIG_FILE

    def rope_table(self, total_length: int, positions: NDArray[np.int64]) -> tuple[Any, Any]:
        """One table, whatever the length: a context in which LongRoPE switches is refused."""
        del total_length
        cos, sin = self.rotary_tables()
        rows = positions[(positions >= 0) & (positions < len(cos))]
        return cos[rows], sin[rows]

    def facts(self, context_length: int) -> Iterator[Fact]:
        yield from settings_facts(read_config(self._config), self._decoder, context_length)
        yield from graph_facts(self.graphs[GRAPH_FILE], self._decoder, self._layout)
        for name, first, rows in zero_point_rows(self._layout):
            found = self.tensor_rows(self._layout.tensors[name], first, first + len(rows))
            yield Fact(f"{name}: zero points that are wrong", int(np.count_nonzero(found != rows)), 0)


def open_stored(path: Path, decoder: Decoder, recipe: Storages) -> StoredDml:
    return StoredDml(path, decoder, recipe)

"""A multimodal variant read back for the proof, behind `converters.verify.Stored`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.multimodal import Multimodal
from converters.onnx.facts import at_path, config_facts, graph_facts, table_switch
from converters.onnx.genai_config import CONFIG_FILE
from converters.onnx.multimodal.config import multimodal_config
from converters.onnx.multimodal.layout import decoder_graph_file, graphs, plan_files
from converters.onnx.stored import StoredWeights, read_config
from converters.verify import Fact
from converters.writer import Storages


class StoredMultimodal(StoredWeights):
    """The decoders must name the same bytes of the base, which the reader checks."""

    def __init__(self, directory: Path, model: Multimodal, recipe: Storages) -> None:
        files = plan_files(model, recipe, 1)  # what is stored does not depend on the context
        layouts = files.layouts
        stored = tuple(each for layout in layouts for each in layout.stored)
        names = list(graphs(model, files, 1))
        super().__init__(directory, stored, names, [layout.file for layout in layouts])
        self._model = model
        self._config = directory / CONFIG_FILE
        self._decoders = [decoder_graph_file(name) for name in (None, *files.adapters)]

    def rope_table(self, total_length: int, positions: NDArray[np.int64]) -> tuple[Any, Any]:
        cos, sin = self.rotary_tables()
        switch = table_switch(self.graphs[self._decoders[0]])
        rows = positions + (switch[1] if switch is not None and total_length > switch[0] else 0)
        rows = rows[(rows >= 0) & (rows < len(cos))]
        return cos[rows], sin[rows]

    def facts(self, context_length: int) -> Iterator[Fact]:
        """Constants of every decoder's graph and of genai_config.json, and which file is which there."""
        decoder = replace(self._model.decoder, adapters=())
        for name in self._decoders:
            yield from graph_facts(self.graphs[name], decoder, context_length)
        found, expected = read_config(self._config), multimodal_config(self._model, context_length)
        for fact in config_facts(found, decoder, context_length):
            if not fact.key.endswith("model.type"):
                yield fact
        for key in ("type", "vision", "speech", "embedding"):
            value = at_path(found, f"model.{key}")
            yield Fact(f"{CONFIG_FILE}: model.{key}", value, at_path(expected, f"model.{key}"))


def open_stored(path: Path, model: Multimodal, recipe: Storages) -> StoredMultimodal:
    return StoredMultimodal(path, model, recipe)

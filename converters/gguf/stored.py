"""A written GGUF read back by neutral weight names: what the proof compares with the checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.decoder import Decoder, Weight
from converters.errors import CheckpointError
from converters.gguf.layout import LONG_FACTORS, SHORT_FACTORS, places, tensors
from converters.gguf.limits import CONTEXT_STEP
from converters.gguf.reader import Gguf
from converters.writer import Storages


def open_stored(path: Path, decoder: Decoder, recipe: Storages) -> StoredGguf:
    """Open `path`, written by this room for `decoder` with `recipe`. CheckpointError when it is damaged."""
    return StoredGguf(Gguf.open(path), decoder, recipe)


class StoredGguf:
    """`converters.verify.Stored` over a GGUF; rows are dequantized by the `gguf` package, not by our codec."""

    def __init__(self, file: Gguf, decoder: Decoder, recipe: Storages) -> None:
        self._file = file
        self._places = places(tensors(decoder, recipe.storage))

    def rows(self, weight: Weight, start: int, stop: int) -> NDArray[np.float32]:
        """Float32 rows [start, stop); for a vector, values."""
        place = self._places[weight.name]
        found = self._file.tensor(place.tensor.name)
        if found.shape != place.tensor.shape:
            raise CheckpointError(
                f"{self._file.path}: tensor '{found.name}' has the shape {found.shape}, not {place.tensor.shape}",
                hint="convert again",
            )
        if not weight.is_matrix:
            return self._file.read(found.name)[start:stop]
        return self._file.read(found.name, place.row + start, place.row + stop)

    def rope_table(self, total_length: int, positions: NDArray[np.int64]) -> tuple[Any, Any]:
        """(cos, sin) as llama.cpp computes them, float32 [len(positions), rotary size / 2].

        The factors depend on the context that the file asks for, not on `total_length`; angles are a running
        product in float32 (ggml-cpu/ops.cpp, `ggml_rope_cache_init`).
        """
        meta = self._file.metadata
        pairs = int(meta["phi3.rope.dimension_count"]) // 2
        context = -(-int(meta["phi3.context_length"]) // CONTEXT_STEP) * CONTEXT_STEP
        long = context > int(meta["phi3.rope.scaling.original_context_length"])
        name = LONG_FACTORS if long else SHORT_FACTORS
        factors = self._file.read(name) if name in self._file.tensors else np.ones(pairs, np.float32)
        steps = np.full(
            (len(positions), pairs), np.float32(meta["phi3.rope.freq_base"]) ** np.float32(-1 / pairs)
        )
        steps[:, 0] = positions
        angle = np.multiply.accumulate(steps.astype(np.float32), axis=1) / factors
        scale = np.float32(meta["phi3.rope.scaling.attn_factor"])
        return np.cos(angle) * scale, np.sin(angle) * scale

    def close(self) -> None:
        self._file.close()

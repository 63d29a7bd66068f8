"""The seam between the one streamed pass and the formats.

A pass reads row chunks of each weight once, encodes them once by the recipe, and hands the same chunk to
every writer. A writer knows all sizes beforehand, so it lays its file out first and then only does positioned
writes: any order of chunks gives the same bytes, from any thread, and nothing is ever buffered whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from converters.decoder import Weight
from quant.blocks import Blocks

Encoded = Blocks | NDArray[np.generic]
"""A row chunk as stored: Blocks, or float32 / float16 / ml_dtypes.bfloat16 rows, [n, columns] or [n]."""

Storage = Literal["f32", "f16", "bf16", "int4", "int4_asym", "int5", "int8"]
"""How a weight lies in an artifact: a float type, or a block format of `quant.blocks`."""


Activations = Literal["f16", "u16"]
"""What an NPU computes with between its weights."""


class Storages(Protocol):
    """All that a format needs to know of a recipe (`quant.recipe.Recipe` is one)."""

    @property
    def activations(self) -> Activations: ...

    @property
    def ranges(self) -> Mapping[str, tuple[float, float]] | None:
        """Least and largest input and output of every linear layer (`quant.ranges`), once they are measured."""

    def storage(self, weight: Weight) -> Storage: ...


class ArtifactWriter(Protocol):
    """One variant being written. Create it with the format's `open_writer(...)`."""

    def holds(self, weight: Weight) -> bool:
        """Whether the variant has a place for `weight`: one for text has none for what encoders need."""

    def write(self, weight: Weight, start: int, rows: Encoded) -> None:
        """Store rows [start, start + n) of `weight`. Thread-safe; chunks may come in any order."""

    def close(self) -> None:
        """Finish headers and small files, and fail if any row was never written. Whoever publishes syncs."""

    def abort(self) -> None:
        """Close descriptors without finishing. The caller removes the files."""

"""What the DirectML tests share: write a variant, run its graph in onnxruntime on the CPU, ask the reference."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.random_checkpoint import SHAPES
from converters.checkpoint import Checkpoint
from converters.decoder import Decoder
from converters.models import describe
from converters.onnx import dml
from converters.reference import logits
from quant.recipe import Recipe
from tests.converters import onnx_support
from tests.converters.onnx_support import uniform

TINY = [name for name in SHAPES if name not in ("1b", "phi4-mini-full")]
ODD_BLOCKS = ("phi3-medium", "odd-heads", "uneven")
"""Shapes with an odd number of blocks a row, for which int8 is refused."""


def recipe_for(shape: str) -> Recipe:
    """The preset int4, whose embedding and lm_head are int8, where it is taken."""
    return uniform("int4") if shape in ODD_BLOCKS else Recipe.preset("int4")


def convert(checkpoint: Path, directory: Path, recipe: Recipe, *, context_length: int = 256) -> Decoder:
    return onnx_support.convert(checkpoint, directory, recipe, context_length=context_length, room=dml)


class Session(onnx_support.PositionedSession):
    """The graph with its cache in float16."""

    def __init__(self, directory: Path, batch: int = 1) -> None:
        super().__init__(directory, batch)
        self._cache = {name: empty.astype(np.float16) for name, empty in self._cache.items()}


def reference(checkpoint: Path, recipe: Recipe, ids: Sequence[int]) -> NDArray[np.float32]:
    """Logits of the float evaluator on the stored weights."""
    with Checkpoint.open(checkpoint) as opened:
        return logits(
            opened,
            describe(opened),
            list(ids),
            transform=lambda weight, start, raw: Recipe.decode(recipe.encode(weight, raw, start=start)),
        )


def cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Of all logits together."""
    x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    return float(x @ y / np.sqrt((x @ x) * (y @ y)))

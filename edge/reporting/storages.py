"""The matrices of the layers as a table, and how many bits a recipe spends on each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from converters.decoder import Decoder, Experts, GegeluMlp, Layer, RoutedMlp, Weight
from converters.hybrid import HybridDecoder
from quant.blocks import BLOCK, FORMATS
from quant.recipe import Recipe

COLUMNS = ("q", "k", "v", "o", "gate", "up", "down")
_FLOAT_BITS = {"f32": 32.0, "f16": 16.0, "bf16": 16.0}


def has_columns(decoder: Decoder) -> bool:
    """Whether every layer has the matrices of COLUMNS."""
    if isinstance(decoder, HybridDecoder):
        return False
    return not any(
        isinstance(layer.mlp, GegeluMlp) or any(weight.factors for weight in layer.handles())
        for layer in decoder.layers
    )


def matrices(layer: Layer) -> tuple[tuple[Weight, ...], ...]:
    """Those of COLUMNS, in the order in which the layer uses them; of experts, everybody's."""
    mlps = layer.mlp.experts if isinstance(layer.mlp, Experts | RoutedMlp) else (layer.mlp,)
    attention = ((layer.q,), (layer.k,), (layer.v,), (layer.o,))
    return (*attention, *(tuple(getattr(mlp, name) for mlp in mlps) for name in COLUMNS[4:]))


def storage_bits(decoder: Decoder, recipe: Recipe) -> NDArray[np.float64]:
    """Bits per weight, float64 [layers, len(COLUMNS)], with a block's 16-bit scale and zero point; mean of experts."""
    return np.array(
        [
            [np.mean([_bits(recipe.storage(weight)) for weight in group]) for group in matrices(layer)]
            for layer in decoder.layers
        ]
    )


def _bits(storage: str) -> float:
    return FORMATS[storage].gguf_bytes * 8 / BLOCK if storage in FORMATS else _FLOAT_BITS[storage]

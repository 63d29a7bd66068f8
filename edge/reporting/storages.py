"""The matrices of the layers as a table, and how many bits a recipe spends on each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from converters.decoder import Decoder, Layer, Weight
from quant.blocks import BLOCK, FORMATS
from quant.recipe import Recipe

COLUMNS = ("q", "k", "v", "o", "gate", "up", "down")
_FLOAT_BITS = {"f32": 32.0, "f16": 16.0, "bf16": 16.0}


def matrices(layer: Layer) -> tuple[Weight, ...]:
    """Those of COLUMNS, in the order in which the layer uses them."""
    return (layer.q, layer.k, layer.v, layer.o, layer.dense.gate, layer.dense.up, layer.dense.down)


def storage_bits(decoder: Decoder, recipe: Recipe) -> NDArray[np.float64]:
    """Bits per weight, float64 [layers, len(COLUMNS)], with a block's 16-bit scale and zero point."""
    return np.array(
        [[_bits(recipe.storage(weight)) for weight in matrices(layer)] for layer in decoder.layers]
    )


def _bits(storage: str) -> float:
    return FORMATS[storage].gguf_bytes * 8 / BLOCK if storage in FORMATS else _FLOAT_BITS[storage]

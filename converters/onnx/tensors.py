"""Which tensors of `model.onnx.data` hold which weight, and how a row chunk becomes their bytes.

    storage               tensors, first axis the weight's rows
    f32, f16, bf16        NAME                    the rows as they are, [rows, columns] or [n]
    int4, int8            NAME.codes              uint8 [rows, blocks, 16 or 32], as MatMulNBits wants them
                          NAME.scales             float32 or float16 [rows, blocks]
    int4_asym             the same, and NAME.zeros  uint8 [rows, ceil(blocks / 2)]

MatMulNBits wants scales in the type of its activations: float32 on the CPU, float16 on an NPU or GPU. The values
are float16 either way.
Query, key and value of a layer lie one under the other as `layers.N.attention.qkv` where one storage serves
all three: GroupQueryAttention takes them packed, from one MatMul. Their biases follow them. Experts lie one under the
other as `layers.N.moe.gate_up`, where rows of gate and up take turns, and `layers.N.moe.down`. Of matrices in factors
those are stored, and the `b` of matrices that share one `a` lie one under the other as well: `layers.N.mlp.gate_up.b`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from converters.decoder import Decoder, Experts, GatedMlp, GegeluMlp, Layer, RoutedMlp, Weight
from converters.hybrid import HybridDecoder
from converters.writer import Encoded, Storage, Storages
from quant.blocks import BLOCK, FORMATS, BlockFormat, Blocks, FormatName, from_matmulnbits, to_matmulnbits

_FLOATS: dict[str, np.dtype[Any]] = {
    "f32": np.dtype(np.float32),
    "f16": np.dtype(np.float16),
    "bf16": np.dtype(ml_dtypes.bfloat16),
}


@dataclass(frozen=True)
class Tensor:
    """Name, element type and shape of one tensor; rows are its first axis."""

    name: str
    dtype: np.dtype[Any]
    dims: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        return math.prod(self.dims[1:]) * self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        return self.dims[0] * self.row_bytes


@dataclass(frozen=True)
class Stored:
    """Weights of one storage, one under the other in the same tensors.

    turns: so many of them, one after another, have as many rows each, and their rows take turns.
    """

    name: str
    storage: Storage
    weights: tuple[Weight, ...]
    scale_type: np.dtype[Any] = _FLOATS["f32"]
    turns: int = 1

    @property
    def rows(self) -> int:
        return sum(weight.rows for weight in self.weights)

    @property
    def columns(self) -> int:
        return self.weights[0].shape[1]

    @property
    def format(self) -> BlockFormat | None:
        """The block format, or None for a float storage."""
        return FORMATS.get(cast(FormatName, self.storage))

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        if self.format is None:
            dims = (self.rows, *self.weights[0].shape[1:])
            return (Tensor(self.name, _FLOATS[self.storage], dims),)
        blocks = self.columns // BLOCK
        codes = (self.rows, blocks, BLOCK * self.format.bits // 8)
        tensors = [
            Tensor(f"{self.name}.codes", np.dtype(np.uint8), codes),
            Tensor(f"{self.name}.scales", self.scale_type, (self.rows, blocks)),
        ]
        if not self.format.symmetric:
            zeros = (self.rows, -(-blocks // 2))
            tensors.append(Tensor(f"{self.name}.zeros", np.dtype(np.uint8), zeros))
        return tuple(tensors)

    def first_row(self, weight: Weight) -> int:
        """Where the rows of `weight` begin; the next one is `turns` further on."""
        group, turn = divmod(self.weights.index(weight), self.turns)
        return sum(before.rows for before in self.weights[: group * self.turns]) + turn

    def pack(self, rows: Encoded) -> tuple[NDArray[np.generic], ...]:
        """A row chunk as one contiguous array for each of `tensors`. ValueError when it is of another storage."""
        if isinstance(rows, Blocks):
            if rows.format != self.format:
                raise ValueError(f"{self.name} is stored as {self.storage}, not {rows.format.name}")
            codes, scales, zeros = to_matmulnbits(rows)
            packed: list[NDArray[np.generic]] = [codes, scales.astype(self.scale_type)]
            packed += [] if zeros is None else [zeros]
        else:
            packed = [rows]
        for array, tensor in zip(packed, self.tensors, strict=True):
            if array.dtype != tensor.dtype or array.shape[1:] != tensor.dims[1:]:
                raise ValueError(f"{tensor.name}: {array.dtype} {array.shape} does not fit {tensor}")
        return tuple(np.ascontiguousarray(array) for array in packed)

    def unpack(self, arrays: Sequence[NDArray[Any]]) -> Encoded:
        """Inverse of `pack`."""
        if self.format is None:
            return cast(NDArray[np.generic], arrays[0])
        return from_matmulnbits(self.format, *arrays)


def stored_weights(
    decoder: Decoder,
    recipe: Storages,
    *,
    scale_type: np.dtype[Any] = _FLOATS["f32"],
    packed: bool = True,
) -> tuple[Stored, ...]:
    """Everything that the variant stores, in forward order; a tied embedding once.

    `scale_type`: of every block. `packed`: query, key and value one under the other where one storage serves them.
    """
    if isinstance(decoder, HybridDecoder):
        return tuple(replace(_alone(weight, recipe), scale_type=scale_type) for weight in decoder.weights())
    stored = [_alone(decoder.embedding, recipe)]
    for index, layer in enumerate(decoder.layers):
        stored.extend(_each(recipe, layer.input_norm, layer.input_norm_bias))
        stored.extend(_attention_inputs(index, layer, recipe, packed=packed))
        norm = (layer.post_attention_norm, layer.post_attention_norm_bias)
        stored.extend(_product(recipe, layer.o))
        stored.extend(_each(recipe, layer.o_bias, *norm))
        stored.extend(_mlp(layer.mlp, recipe))
    stored.extend(_each(recipe, decoder.final_norm, decoder.final_norm_bias))
    stored.extend(_each(recipe, None if decoder.tied else decoder.lm_head, decoder.lm_head_bias))
    return tuple(replace(each, scale_type=scale_type) for each in stored)


def _alone(weight: Weight, recipe: Storages) -> Stored:
    return Stored(weight.name, recipe.storage(weight), (weight,))


def _each(recipe: Storages, *weights: Weight | None) -> list[Stored]:
    return [_alone(weight, recipe) for weight in weights if weight is not None]


def _attention_inputs(index: int, layer: Layer, recipe: Storages, *, packed: bool) -> list[Stored]:
    weights = (layer.q, layer.k, layer.v)
    biases = tuple(bias for bias in (layer.q_bias, layer.k_bias, layer.v_bias) if bias is not None)
    if layer.q.factors:
        return _product(recipe, *weights)
    storages = {recipe.storage(weight) for weight in weights}
    if len(storages) > 1 or not packed:
        return _each(recipe, *weights, *biases)
    name = f"layers.{index}.attention.qkv"
    stored = [Stored(name, storages.pop(), weights)]
    return stored + ([Stored(f"{name}.bias", "f32", biases)] if biases else [])


def _product(recipe: Storages, *weights: Weight) -> list[Stored]:
    """Of matrices one above the other in the checkpoint; in factors, they have one storage for every `b`."""
    if not (shared := weights[0].factors):
        return _each(recipe, *weights)
    ups = tuple(weight.factors.b for weight in weights if weight.factors)
    name = f"{shared.a.name.removesuffix('.a')}.b"
    return [*_each(recipe, shared.a, shared.sparse), Stored(name, recipe.storage(ups[0]), ups)]


def _mlp(mlp: GatedMlp | GegeluMlp | Experts | RoutedMlp, recipe: Storages) -> list[Stored]:
    if isinstance(mlp, GatedMlp):
        return [*_product(recipe, mlp.gate, mlp.up), *_product(recipe, mlp.down)]
    if not isinstance(mlp, Experts | RoutedMlp):
        return _each(recipe, *mlp.weights())
    chooser = mlp.router if isinstance(mlp, Experts) else mlp.table
    name = f"{chooser.name.rpartition('.')[0]}."
    first = tuple(weight for expert in mlp.experts for weight in (expert.gate, expert.up))
    second = tuple(expert.down for expert in mlp.experts)
    return [
        _alone(chooser, recipe),
        Stored(f"{name}gate_up", recipe.storage(first[0]), first, turns=2),
        Stored(f"{name}down", recipe.storage(second[0]), second),
    ]

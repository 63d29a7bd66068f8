"""Which GGUF tensor holds which weights, for llama.cpp's architecture `phi3`.

Names and shapes are those that llama.cpp's loader asks for (src/models/phi3.cpp, src/llama-arch.cpp): q, k and v
one above the other in `attn_qkv` (or apart, when a recipe stores them differently), gate above up in `ffn_up`,
`output` only when the embedding is not shared (llama.cpp then reads `token_embd` twice).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from converters.decoder import Decoder, Layer, Weight
from converters.errors import UnsupportedError

TYPES: dict[str, GGMLQuantizationType] = {
    "f32": GGMLQuantizationType.F32,
    "f16": GGMLQuantizationType.F16,
    "bf16": GGMLQuantizationType.BF16,
    "int4": GGMLQuantizationType.Q4_0,
    "int4_asym": GGMLQuantizationType.Q4_1,
    "int5": GGMLQuantizationType.Q5_0,
    "int8": GGMLQuantizationType.Q8_0,
}
"""Storages of a recipe (`converters.writer.Storage`) as ggml types."""

ALIGNMENT = 32
"""Bytes; a GGUF without the key general.alignment has this."""

ARCHITECTURE = "phi3"
LONG_FACTORS = "rope_factors_long.weight"
SHORT_FACTORS = "rope_factors_short.weight"


@dataclass(frozen=True)
class Tensor:
    """One tensor of the file: `weights` one above the other, or a vector of constants.

    `shape` is (rows, columns) or (n,). A row of a vector is one value.
    """

    name: str
    storage: str
    shape: tuple[int, ...]
    weights: tuple[Weight, ...] = ()
    constants: tuple[float, ...] = ()

    @property
    def row_bytes(self) -> int:
        per_block, block_bytes = GGML_QUANT_SIZES[TYPES[self.storage]]
        return int(math.prod(self.shape[1:]) // per_block * block_bytes)

    @property
    def nbytes(self) -> int:
        return self.shape[0] * self.row_bytes


@dataclass(frozen=True)
class Place:
    """Where a weight starts: the first of its rows in a tensor."""

    tensor: Tensor
    row: int


def tensors(decoder: Decoder, storage: Callable[[Weight], str]) -> list[Tensor]:
    """Every tensor in file order, which is the order of a forward pass."""
    rope = decoder.rope
    out = [_stack("token_embd", (decoder.embedding,), storage)]
    for name, factors in ((LONG_FACTORS, rope.long_factors), (SHORT_FACTORS, rope.short_factors)):
        if factors is not None:
            out.append(Tensor(name, "f32", (len(factors),), constants=factors))
    for index, layer in enumerate(decoder.layers):
        out += _layer(f"blk.{index}.", layer, storage)
    out.append(_stack("output_norm", (decoder.final_norm,), storage))
    if not decoder.tied:
        out.append(_stack("output", (decoder.lm_head,), storage))
    return out


def places(layout: list[Tensor]) -> dict[str, Place]:
    """Neutral weight name -> its place."""
    found: dict[str, Place] = {}
    for tensor in layout:
        row = 0
        for weight in tensor.weights:
            found[weight.name] = Place(tensor, row)
            row += weight.rows
    return found


def _layer(prefix: str, layer: Layer, storage: Callable[[Weight], str]) -> list[Tensor]:
    qkv = (layer.q, layer.k, layer.v)
    if len({storage(weight) for weight in qkv}) == 1:
        attention = [_stack(prefix + "attn_qkv", qkv, storage)]
    else:
        attention = [_stack(prefix + f"attn_{n}", (w,), storage) for n, w in zip("qkv", qkv, strict=True)]
    return [
        _stack(prefix + "attn_norm", (layer.input_norm,), storage),
        *attention,
        _stack(prefix + "attn_output", (layer.o,), storage),
        _stack(prefix + "ffn_norm", (layer.post_attention_norm,), storage),
        _stack(prefix + "ffn_up", (layer.dense.gate, layer.dense.up), storage),
        _stack(prefix + "ffn_down", (layer.dense.down,), storage),
    ]


def _stack(name: str, weights: tuple[Weight, ...], storage: Callable[[Weight], str]) -> Tensor:
    kinds = {weight.name: storage(weight) for weight in weights}
    if len(set(kinds.values())) > 1:
        listed = ", ".join(f"{weight} as {kind}" for weight, kind in kinds.items())
        raise UnsupportedError(
            f"the recipe stores {listed}, but llama.cpp keeps them in one tensor of one type ({name})",
            hint="give them one storage in the recipe",
        )
    rows = sum(weight.rows for weight in weights)
    return Tensor(f"{name}.weight", kinds[weights[0].name], (rows, *weights[0].shape[1:]), weights)

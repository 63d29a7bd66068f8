"""Which GGUF tensor holds which weights, for llama.cpp's architectures `phi3` and `phimoe`.

Names and shapes are those that llama.cpp's loader asks for (src/models/phi3.cpp, phimoe.cpp, src/llama-arch.cpp): q,
k and v one above the other in `attn_qkv` (or apart, when a recipe stores them differently or
they have biases: the llama.cpp of the app, b8189, reads no `attn_qkv.bias`), gate above up in
`ffn_up`, `output` only when the embedding is not shared (llama.cpp then reads `token_embd` twice). Of experts gates,
ups and downs are a tensor each, with an axis for the experts; biases that `phimoe` asks for and the model has not
are zeros.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from converters.decoder import Decoder, Experts, GatedMlp, Layer, Weight
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

LONG_FACTORS = "rope_factors_long.weight"
SHORT_FACTORS = "rope_factors_short.weight"


@dataclass(frozen=True)
class Tensor:
    """One tensor of the file: `weights` one above the other, or a vector of constants.

    `shape` is (rows, columns) or (n,). A row of a vector is one value. `experts`: 0, or how many have its rows.
    """

    name: str
    storage: str
    shape: tuple[int, ...]
    weights: tuple[Weight, ...] = ()
    constants: tuple[float, ...] = ()
    experts: int = 0

    @property
    def dims(self) -> tuple[int, ...]:
        """As the file says it."""
        rows, *columns = self.shape
        return (self.experts, rows // self.experts, *columns) if self.experts else self.shape

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


def architecture(decoder: Decoder) -> str:
    """Of llama.cpp's."""
    return "phimoe" if decoder.has_experts else "phi3"


def tensors(decoder: Decoder, storage: Callable[[Weight], str]) -> list[Tensor]:
    """Every tensor in file order, which is the order of a forward pass."""
    rope = decoder.rope
    out = [_stack("token_embd", (decoder.embedding,), storage)]
    for name, factors in ((LONG_FACTORS, rope.long_factors), (SHORT_FACTORS, rope.short_factors)):
        if factors is not None:
            out.append(Tensor(name, "f32", (len(factors),), constants=factors))
    for index, layer in enumerate(decoder.layers):
        out += _layer(f"blk.{index}.", layer, storage, biased=decoder.has_experts)
    out.append(_stack("output_norm", (decoder.final_norm,), storage))
    if not decoder.tied:
        out.append(_stack("output", (decoder.lm_head,), storage))
    if decoder.has_experts:
        out.append(_bias("output_norm", decoder.final_norm_bias, decoder.hidden_size))
        out.append(_bias("output", decoder.lm_head_bias, decoder.vocab_size))
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


def _layer(prefix: str, layer: Layer, storage: Callable[[Weight], str], *, biased: bool) -> Iterator[Tensor]:
    """`biased`: with the biases that llama.cpp asks for."""
    yield _stack(prefix + "attn_norm", (layer.input_norm,), storage)
    qkv, biases = (layer.q, layer.k, layer.v), (layer.q_bias, layer.k_bias, layer.v_bias)
    given = any(bias is not None for bias in biases)
    if len({storage(weight) for weight in qkv}) == 1 and not given:
        yield _stack(prefix + "attn_qkv", qkv, storage)
    else:
        for name, weight, bias in zip("qkv", qkv, biases, strict=True):
            yield _stack(f"{prefix}attn_{name}", (weight,), storage)
            if bias is not None:
                yield _bias(f"{prefix}attn_{name}", bias, weight.rows)
    yield _stack(prefix + "attn_output", (layer.o,), storage)
    yield _stack(prefix + "ffn_norm", (layer.post_attention_norm,), storage)
    if biased:
        yield _bias(prefix + "attn_norm", layer.input_norm_bias, layer.input_norm.rows)
        yield _bias(prefix + "attn_output", layer.o_bias, layer.o.rows)
        yield _bias(prefix + "ffn_norm", layer.post_attention_norm_bias, layer.o.rows)
    yield from _mlp(prefix, layer.mlp if isinstance(layer.mlp, Experts) else layer.dense, storage)


def _mlp(prefix: str, mlp: GatedMlp | Experts, storage: Callable[[Weight], str]) -> Iterator[Tensor]:
    if isinstance(mlp, GatedMlp):
        yield _stack(prefix + "ffn_up", (mlp.gate, mlp.up), storage)
        yield _stack(prefix + "ffn_down", (mlp.down,), storage)
        return
    yield _stack(prefix + "ffn_gate_inp", (mlp.router,), storage)
    parts = {
        "gate": tuple(expert.gate for expert in mlp.experts),
        "up": tuple(expert.up for expert in mlp.experts),
        "down": tuple(expert.down for expert in mlp.experts),
    }
    for name, weights in parts.items():
        yield replace(_stack(f"{prefix}ffn_{name}_exps", weights, storage), experts=len(weights))


def _bias(name: str, bias: Weight | None, rows: int) -> Tensor:
    """Zeros where the model has none."""
    if bias is None:
        return Tensor(f"{name}.bias", "f32", (rows,), constants=(0.0,) * rows)
    return Tensor(f"{name}.bias", "f32", (rows,), (bias,))


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

"""What onnxruntime 1.32 and onnxruntime-genai 0.18 can run rightly."""

from __future__ import annotations

from converters.decoder import Decoder, Experts, RoutedMlp
from converters.errors import UnsupportedError
from converters.hybrid import HybridDecoder
from converters.writer import Storages
from quant.blocks import FORMATS

REREAD_AT = {4096: "phi3", 8192: "phi3small"}
"""Where onnxruntime-genai computes the cache anew when a LongRoPE model grows beyond it, and the type of model for
which it does (generators.cpp; phimoe as phi3)."""

BLOCK_FORMATS = frozenset(name for name, each in FORMATS.items() if each.in_onnx)
_FUSED_HEAD_MULTIPLE = 16
_FUSED_ROTARY_MULTIPLE = 16
_HYBRID_HEAD_MULTIPLE = 4
BLOCK_SIZES = (16, 32, 64, 128)
"""What SparseAttention takes (its schema)."""


def context_limit(decoder: Decoder) -> tuple[int, str | None]:
    """The longest context that is right here, and why where that is less than the checkpoint claims."""
    switch = decoder.rope.original_context
    if decoder.rope.is_longrope and switch < decoder.context_length and switch not in REREAD_AT:
        return switch, (
            f"LongRoPE factors switch at {switch} positions, and onnxruntime-genai computes the cache anew only "
            f"at {' or '.join(map(str, REREAD_AT))}"
        )
    return decoder.context_length, None


def check_context(decoder: Decoder, asked: int, longest: tuple[int, str | None], where: str = "") -> None:
    """Raise UnsupportedError for a context of `asked` tokens that is not within `longest` (of a `context_limit`)."""
    limit, why = longest
    if 0 < asked <= limit:
        return
    reason = f": {why}" if why else ""
    raise UnsupportedError(
        f"context length {asked} is not in 1..{limit} of {decoder.architecture}{where}{reason}",
        hint=f"try: --context {limit}",
    )


def fused_rotary(decoder: Decoder) -> bool:
    """Whether the attention kernels can rotate: GroupQueryAttention's refuses other head sizes and rotary widths, and
    SparseAttention has no place for positions that begin in LongRoPE's second table."""
    return (
        not any(layer.sparse for layer in decoder.layers)
        and decoder.attention.head_dim % _FUSED_HEAD_MULTIPLE == 0
        and decoder.rope.dim % _FUSED_ROTARY_MULTIPLE == 0
    )


def check(decoder: Decoder, recipe: Storages) -> None:
    """Raise UnsupportedError, by name, for what no graph of this room would compute rightly."""
    if isinstance(decoder, HybridDecoder):
        _check_hybrid(decoder)
        _check_ends(decoder)
        _check_storages(decoder, recipe)
        return
    attention, rope = decoder.attention, decoder.rope
    if attention.heads % attention.kv_heads:
        raise UnsupportedError(
            f"{attention.heads} attention heads are no multiple of {attention.kv_heads} key-value heads",
            hint="check num_attention_heads and num_key_value_heads in config.json",
        )
    if rope.dim % 2 or not 0 < rope.dim <= attention.head_dim:
        raise UnsupportedError(
            f"rotary width {rope.dim} is odd or wider than a head ({attention.head_dim})",
            hint="check partial_rotary_factor in config.json",
        )
    for sparse in {layer.sparse for layer in decoder.layers if layer.sparse}:
        if sparse.block not in BLOCK_SIZES:
            raise UnsupportedError(
                f"attention in blocks of {sparse.block} positions, and SparseAttention takes only "
                f"{', '.join(map(str, BLOCK_SIZES))}",
                hint="check blocksparse_block_size in config.json",
            )
    _check_ends(decoder)
    _check_storages(decoder, recipe)


def _check_hybrid(decoder: HybridDecoder) -> None:
    if decoder.attention.head_dim % _HYBRID_HEAD_MULTIPLE:
        raise UnsupportedError(
            f"heads of {decoder.attention.head_dim} channels, which in pairs GroupQueryAttention takes only as "
            f"multiples of {_HYBRID_HEAD_MULTIPLE}",
            hint="check hidden_size and num_attention_heads in config.json",
        )


def _check_ends(decoder: Decoder) -> None:
    if not decoder.eos_token_ids:
        raise UnsupportedError(
            "no end-of-sequence token id: onnxruntime-genai would never stop",
            hint="set eos_token_id in config.json or generation_config.json",
        )


def _check_storages(decoder: Decoder, recipe: Storages) -> None:
    for weight in decoder.weights():
        storage = recipe.storage(weight)
        if storage in FORMATS and storage not in BLOCK_FORMATS:
            raise UnsupportedError(
                f"{weight.name} is stored as {storage}, but onnxruntime multiplies by 2, 4 or 8 bits only",
                hint="give it int4 or int8 in the recipe, or convert for llama.cpp alone: --target android",
            )
    for layer in decoder.layers:
        if isinstance(layer.mlp, Experts | RoutedMlp):
            _check_experts(layer.mlp, recipe)


def _check_experts(mlp: Experts | RoutedMlp, recipe: Storages) -> None:
    """One operator computes all experts of a layer: gates and ups in one storage, downs in one of as many bits."""
    first = {recipe.storage(weight) for expert in mlp.experts for weight in (expert.gate, expert.up)}
    second = {recipe.storage(expert.down) for expert in mlp.experts}
    bits = {FORMATS[storage].bits if storage in FORMATS else 0 for storage in first | second}
    if len(first) > 1 or len(second) > 1 or len(bits) > 1:
        name = mlp.experts[0].gate.name.rpartition(".0.")[0]
        raise UnsupportedError(
            f"the experts of {name} are stored as {', '.join(sorted(first | second))}, and onnxruntime's operator "
            "takes one width for all of a layer",
            hint="give them one storage in the recipe; where 32 does not divide their widths, --precision f16",
        )

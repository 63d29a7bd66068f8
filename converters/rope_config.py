"""The rope keys of a Phi-family config: hub layout (`rope_scaling`) or transformers 5 (`rope_parameters`)."""

from __future__ import annotations

import math

from converters.decoder import Rope
from converters.errors import CheckpointError, UnsupportedError
from converters.strict_config import StrictConfig
from converters.strict_json import shown

_LONGROPE = ("longrope", "su", "yarn")
"""The last two are what the first Phi-3 releases called LongRoPE (transformers' Phi3Config maps them)."""
_ORIGINAL = "original_max_position_embeddings"
_FIX = "compare the rope keys of config.json with those that the model was published with"


def read_rope(
    config: StrictConfig,
    head_dim: int,
    context_length: int,
    *,
    theta: float = 10000.0,
    mscales: bool = False,
) -> Rope:
    """Take every rope key of `config`. `head_dim` in channels, `context_length` in positions, `theta` if it has none.

    Meaning and defaults are those of transformers' Phi3Config and `_compute_longrope_parameters`: an explicit
    attention_factor, else one from an explicit factor, else one from max / original positions. With `mscales`
    (Phi-3.5-MoE) LongRoPE has two attention factors, and says so: short_mscale and long_mscale.
    """
    layouts = {key: config.take(key) for key in ("rope_scaling", "rope_parameters")}
    given = {key: value for key, value in layouts.items() if value}
    if len(given) > 1:
        raise _contradiction("rope_scaling", "rope_parameters")
    name, data = next(iter(given.items()), ("rope_scaling", {}))
    if not isinstance(data, dict):
        raise CheckpointError(f"config.json: {name} must be an object, not {shown(data)}", hint=_FIX)
    rope = StrictConfig(data, f"{name}.")
    theta = _holder(config, rope, "rope_theta").number("rope_theta", theta)
    partial = _holder(config, rope, "partial_rotary_factor").number("partial_rotary_factor", 1.0)
    # Where the key is absent at the top, transformers' Phi3 takes its default of 4096 even against the rope object.
    original = (_holder(config, rope, _ORIGINAL) if mscales else config).integer(_ORIGINAL, 4096)
    if rope.take(_ORIGINAL, original) != original:
        raise _contradiction(f"{_ORIGINAL} ({original})", f"{name}.{_ORIGINAL}")

    dim = int(head_dim * partial)
    if dim % 2 or not 0 < dim <= head_dim:
        raise UnsupportedError(
            f"config.json: partial_rotary_factor = {partial:g} rotates {dim} of {head_dim} channels "
            "(only an even number of them)",
            hint=_FIX,
        )
    kind = _kind(rope, name)
    if kind == "default":
        rope.finish()
        return Rope(theta=theta, dim=dim, original_context=context_length)
    result = Rope(
        theta=theta,
        dim=dim,
        original_context=original,
        attention_factor=rope.number("short_mscale") if mscales else _stretch(rope, context_length, original),
        short_factors=rope.numbers("short_factor", dim // 2),
        long_factors=rope.numbers("long_factor", dim // 2),
        long_attention_factor=rope.number("long_mscale") if mscales else None,
    )
    rope.finish()
    return result


def _stretch(rope: StrictConfig, context_length: int, original: int) -> float:
    factor = rope.number("factor", context_length / original)
    stretch = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 < original else 1.0
    return rope.number("attention_factor", stretch)


def _kind(rope: StrictConfig, name: str) -> str:
    # transformers 5 keeps the old key beside the new one, which wins.
    old, new = rope.take("type"), rope.take("rope_type")
    kind = new or old or "default"
    if kind in _LONGROPE:
        return "longrope"
    if kind == "default":
        return "default"
    raise UnsupportedError(
        f"config.json: {name}: rope type {shown(kind)} is not supported (only default and longrope)",
        hint=_FIX,
    )


def _holder(config: StrictConfig, rope: StrictConfig, key: str) -> StrictConfig:
    """Which of the two objects says `key`. Raises CheckpointError when they contradict each other."""
    outside, inside = config.take(key), rope.take(key)
    if outside is not None and inside is not None and outside != inside:
        raise _contradiction(key, "the same key among the rope parameters")
    return config if inside is None else rope


def _contradiction(key: str, other: str) -> CheckpointError:
    return CheckpointError(f"config.json: {key} and {other} contradict each other", hint=_FIX)

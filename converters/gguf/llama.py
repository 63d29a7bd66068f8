"""What a llama-architecture GGUF says about itself, as the config of a Phi-3 checkpoint.

Plain llama only: a key that is not understood (rope scaling, experts, a window) is refused by name.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.errors import CheckpointError, UnsupportedError
from converters.gguf.reader import Gguf

HINT = "only plain llama-architecture GGUFs can be rewritten; take the model's safetensors instead"
_MAX_SIZE = 1 << 31
_DEFAULT_THETA = 10000.0
_KNOWN_KEYS = frozenset(
    f"llama.{key}"
    for key in (
        "block_count", "context_length", "embedding_length", "feed_forward_length", "vocab_size",
        "attention.head_count", "attention.head_count_kv", "attention.layer_norm_rms_epsilon",
        "attention.key_length", "attention.value_length", "rope.freq_base", "rope.dimension_count",
    )
)  # fmt: skip


@dataclass(frozen=True)
class Llama:
    """Sizes of the model. `context` in tokens; `tied`: the embedding is the output layer as well."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    context: int
    norm_eps: float
    theta: float
    tied: bool
    token_ids: dict[str, int | None]


def describe(source: Gguf) -> Llama:
    """Raises UnsupportedError for anything but a plain llama, CheckpointError for keys that make no sense."""
    architecture = source.metadata.get("general.architecture")
    if architecture != "llama":
        raise UnsupportedError(f"{source.path}: architecture {architecture!r}, not 'llama'", hint=HINT)
    for key in source.metadata:
        if key.startswith("llama.") and key not in _KNOWN_KEYS:
            raise UnsupportedError(f"{source.path}: key '{key}' is not understood", hint=HINT)
    hidden, heads = _size(source, "embedding_length"), _size(source, "attention.head_count")
    kv_heads = _size(source, "attention.head_count_kv", heads)
    if hidden % heads or heads % kv_heads or hidden // heads % 2:
        raise CheckpointError(f"{source.path}: {hidden} wide, {heads} heads, {kv_heads} kv heads", hint=HINT)
    head_dim = hidden // heads
    for key in ("rope.dimension_count", "attention.key_length", "attention.value_length"):
        if _size(source, key, head_dim) != head_dim:
            raise UnsupportedError(
                f"{source.path}: key 'llama.{key}' is not the head size {head_dim}", hint=HINT
            )
    return Llama(
        layers=_size(source, "block_count"),
        hidden=hidden,
        intermediate=_size(source, "feed_forward_length"),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocab=source.tensor("token_embd.weight").shape[0],
        context=_size(source, "context_length"),
        norm_eps=_positive(source, "attention.layer_norm_rms_epsilon"),
        theta=_positive(source, "rope.freq_base", _DEFAULT_THETA),
        tied="output.weight" not in source.tensors,
        token_ids={name: _token_id(source, name) for name in ("bos", "eos", "padding")},
    )


def phi3_config(model: Llama) -> dict[str, Any]:
    """config.json. Rope stands there twice: newer readers take `rope_parameters`, older ones the plain keys."""
    return {
        "architectures": ["Phi3ForCausalLM"],
        "model_type": "phi3",
        "attention_bias": False,
        "attention_dropout": 0.0,
        **special_ids(model),
        "dtype": "float16",
        "embd_pdrop": 0.0,
        "hidden_act": "silu",
        "hidden_size": model.hidden,
        "initializer_range": 0.02,
        "intermediate_size": model.intermediate,
        "max_position_embeddings": model.context,
        "num_attention_heads": model.heads,
        "num_hidden_layers": model.layers,
        "num_key_value_heads": model.kv_heads,
        "original_max_position_embeddings": model.context,
        "partial_rotary_factor": 1.0,
        "resid_pdrop": 0.0,
        "rms_norm_eps": model.norm_eps,
        "rope_parameters": {
            "partial_rotary_factor": 1.0,
            "rope_theta": model.theta,
            "rope_type": "default",
        },
        "rope_scaling": None,
        "rope_theta": model.theta,
        "sliding_window": None,
        "tie_word_embeddings": model.tied,
        "torch_dtype": "float16",
        "use_cache": True,
        "vocab_size": model.vocab,
    }


def special_ids(model: Llama) -> dict[str, int | None]:
    """Token ids as a config names them; a model without a padding token pads with its end token."""
    ids = model.token_ids
    pad = ids["padding"] if ids["padding"] is not None else ids["eos"]
    return {"bos_token_id": ids["bos"], "eos_token_id": ids["eos"], "pad_token_id": pad}


def _size(source: Gguf, key: str, default: int | None = None) -> int:
    value = source.metadata.get(f"llama.{key}", default)
    if type(value) is not int or not 0 < value < _MAX_SIZE:
        raise CheckpointError(f"{source.path}: key 'llama.{key}' is {value!r}", hint=HINT)
    return value


def _positive(source: Gguf, key: str, default: float | None = None) -> float:
    value = source.metadata.get(f"llama.{key}", default)
    if not isinstance(value, float) or not math.isfinite(value) or value <= 0:
        raise CheckpointError(f"{source.path}: key 'llama.{key}' is {value!r}", hint=HINT)
    # Stored as float32; the shortest decimal that rounds to it is what the model's own config said.
    return float(str(np.float32(value)))


def _token_id(source: Gguf, name: str) -> int | None:
    value = source.metadata.get(f"tokenizer.ggml.{name}_token_id")
    if value is not None and type(value) is not int:
        raise CheckpointError(f"{source.path}: key 'tokenizer.ggml.{name}_token_id' is {value!r}", hint=HINT)
    return value

"""Configs of random Phi-3.5-MoE checkpoints, as `benchmarks.shapes` has them of the dense models.

Figures of the real model are from microsoft/Phi-3.5-MoE-instruct, config.json on the hub.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.toy_tokenizers import Kind

MODEL_TYPE = "phimoe"


def _longrope(pairs: int, short_mscale: float, long_mscale: float, original: int) -> dict[str, Any]:
    return {
        "type": "longrope",
        "short_factor": [round(1 + 0.8 * i / pairs, 4) for i in range(pairs)],
        "long_factor": [round(1.05 + 60 * (i / pairs) ** 2, 4) for i in range(pairs)],
        "short_mscale": short_mscale,
        "long_mscale": long_mscale,
        "original_max_position_embeddings": original,
    }


_BASE: dict[str, Any] = {
    "architectures": ["PhiMoEForCausalLM"],
    "attention_bias": True,
    "attention_dropout": 0.0,
    "hidden_act": "silu",
    "hidden_dropout": 0.0,
    "hidden_size": 128,
    "initializer_range": 0.02,
    "input_jitter_noise": 0.01,
    "intermediate_size": 96,
    "lm_head_bias": True,
    "max_position_embeddings": 131072,
    "model_type": MODEL_TYPE,
    "num_attention_heads": 4,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "num_local_experts": 16,
    "original_max_position_embeddings": 4096,
    "output_router_logits": False,
    "rms_norm_eps": 1e-05,
    # The real model's two scales are equal; these are not, so that one taken for the other shows.
    "rope_scaling": _longrope(16, 1.1, 1.4, 4096),
    "rope_theta": 10000.0,
    "router_aux_loss_coef": 0.0,
    "router_jitter_noise": 0.01,
    "sliding_window": 131072,
    "tie_word_embeddings": False,
    "use_cache": True,
    "vocab_size": 640,
}

MOE_SHAPES: dict[str, dict[str, Any]] = {
    "phi3.5-moe": _BASE,
    # Three layers, 8 experts of an odd number of blocks, heads that the attention kernel cannot rotate.
    "moe-8": {
        **_BASE,
        "hidden_size": 96,
        "intermediate_size": 160,
        "max_position_embeddings": 4096,
        "num_attention_heads": 4,
        "num_hidden_layers": 3,
        "num_key_value_heads": 1,
        "num_local_experts": 8,
        "rope_scaling": None,
    },
    # Neither the width nor the experts' width is a multiple of the quantization block; no bias but the norms'.
    "moe-odd": {
        **_BASE,
        "attention_bias": False,
        "hidden_size": 80,
        "intermediate_size": 72,
        "lm_head_bias": False,
        "num_attention_heads": 5,
        "num_key_value_heads": 5,
        "num_local_experts": 5,
        "rope_scaling": _longrope(8, 1.2, 1.2, 4096),
        "vocab_size": 1003,
    },
    "phi3.5-moe-full": {
        **_BASE,
        "hidden_size": 4096,
        "intermediate_size": 6400,
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "num_key_value_heads": 8,
        "rope_scaling": _longrope(64, 1.243163121016122, 1.243163121016122, 4096),
        "vocab_size": 32064,
    },
}

MOE_TOKENIZERS: dict[str, Kind] = dict.fromkeys(MOE_SHAPES, "spm")


def tensor_shapes(config: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of every tensor, in forward order."""
    hidden, inner, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    head_dim = hidden // config["num_attention_heads"]
    widths = {"q": hidden, "k": config["num_key_value_heads"] * head_dim}
    yield "model.embed_tokens.weight", (vocab, hidden)
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        yield from _norm(layer + "input_layernorm", hidden)
        for name in "qkvo":
            rows = widths.get(name, hidden if name == "o" else widths["k"])
            yield from _linear(f"{layer}self_attn.{name}_proj", rows, hidden, bias=config["attention_bias"])
        yield from _norm(layer + "post_attention_layernorm", hidden)
        moe = layer + "block_sparse_moe."
        yield moe + "gate.weight", (config["num_local_experts"], hidden)
        for expert in range(config["num_local_experts"]):
            for name, shape in {"w1": (inner, hidden), "w3": (inner, hidden), "w2": (hidden, inner)}.items():
                yield f"{moe}experts.{expert}.{name}.weight", shape
    yield from _norm("model.norm", hidden)
    if not config["tie_word_embeddings"]:
        yield from _linear("lm_head", vocab, hidden, bias=config["lm_head_bias"])


def _norm(name: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def _linear(name: str, rows: int, columns: int, *, bias: bool) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (rows, columns)
    if bias:
        yield f"{name}.bias", (rows,)

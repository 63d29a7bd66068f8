"""Configs and tensors of random Phi-4-mini-flash-reasoning checkpoints (SambaY): tiny, and of the real size.

Figures of the real model are those of arXiv 2507.06607 (2560 wide, 32 layers, 40 heads of 64, 20 key-value heads,
window 512) and of its configuration class (16 states, 4 taps, a step rank of hidden / 16).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

MODEL_TYPE = "phi4flash"

_TINY: dict[str, Any] = {
    "architectures": ["Phi4FlashForCausalLM"],
    "attention_dropout": 0.0,
    "embd_pdrop": 0.0,
    "hidden_act": "silu",
    "hidden_size": 64,
    "initializer_range": 0.02,
    "intermediate_size": 96,
    "layer_norm_eps": 1e-05,
    "mamba_conv_bias": True,
    "mamba_d_conv": 4,
    "mamba_d_state": 16,
    "mamba_dt_rank": 4,
    "mamba_expand": 2,
    "mamba_proj_bias": False,
    "max_position_embeddings": 262144,
    "mb_per_layer": 2,
    "model_type": MODEL_TYPE,
    "num_attention_heads": 4,
    "num_hidden_layers": 8,
    "num_key_value_heads": 2,
    "resid_pdrop": 0.0,
    "sliding_window": 12,
    "tie_word_embeddings": True,
    "use_cache": True,
    "vocab_size": 640,
}

HYBRID_SHAPES: dict[str, dict[str, Any]] = {
    "phi4-flash": _TINY,
    # Two pairs, no grouping; other numbers of taps, states and channels; a step rank that the config leaves open.
    "phi4-flash-odd": {
        **_TINY,
        "hidden_size": 96,
        "mamba_d_conv": 3,
        "mamba_d_state": 8,
        "mamba_dt_rank": "auto",
        "mamba_expand": 1,
        "num_attention_heads": 4,
        "num_hidden_layers": 12,
        "num_key_value_heads": 4,
        "vocab_size": 1003,
    },
    # Four layers: every kind once but the windowed attention's twin, and no Gated Memory Unit after the middle.
    "phi4-flash-least": {**_TINY, "num_hidden_layers": 4, "num_attention_heads": 8, "hidden_size": 128},
    "phi4-flash-full": {
        **_TINY,
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "mamba_dt_rank": 160,
        "num_attention_heads": 40,
        "num_hidden_layers": 32,
        "num_key_value_heads": 20,
        "sliding_window": 512,
        "vocab_size": 200064,
    },
}


def tensor_shapes(config: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of every tensor, in forward order."""
    hidden, inner, count = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    size, width = hidden // heads, hidden * config["mamba_expand"]
    states, rank = config["mamba_d_state"], config["mamba_dt_rank"]
    rank = -(-hidden // 16) if rank == "auto" else rank
    yield "model.embed_tokens.weight", (config["vocab_size"], hidden)
    for i in range(count):
        layer, reads_back = f"model.layers.{i}.", i >= count // 2 + 2
        for norm in ("input_layernorm", "post_attention_layernorm"):
            yield layer + norm + ".weight", (hidden,)
            yield layer + norm + ".bias", (hidden,)
        mixer = layer + "attn."
        if i % 2:
            rows = (heads + (0 if reads_back else 2 * kv_heads)) * size
            yield mixer + "Wqkv.weight", (rows, hidden)
            yield mixer + "Wqkv.bias", (rows,)
            yield mixer + "out_proj.weight", (hidden, hidden)
            yield mixer + "out_proj.bias", (hidden,)
            for name in ("q1", "k1", "q2", "k2"):
                yield mixer + "inner_cross_attn.lambda_" + name, (size,)
            yield mixer + "inner_cross_attn.subln.weight", (2 * size,)
        else:
            yield mixer + "in_proj.weight", (width if reads_back else 2 * width, hidden)
            yield mixer + "out_proj.weight", (hidden, width)
            if not reads_back:
                yield mixer + "conv1d.weight", (width, 1, config["mamba_d_conv"])
                yield mixer + "conv1d.bias", (width,)
                yield mixer + "x_proj.weight", (rank + 2 * states, width)
                yield mixer + "dt_proj.weight", (width, rank)
                yield mixer + "dt_proj.bias", (width,)
                yield mixer + "A_log", (width, states)
                yield mixer + "D", (width,)
        yield layer + "mlp.fc1.weight", (2 * inner, hidden)
        yield layer + "mlp.fc2.weight", (hidden, inner)
    yield "model.final_layernorm.weight", (hidden,)
    yield "model.final_layernorm.bias", (hidden,)

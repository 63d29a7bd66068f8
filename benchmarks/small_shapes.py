"""Configs and tensors of random Phi-3-small checkpoints: tiny, and of the real size.

Figures of the real model are from its config.json on the hub. The tiny ones clamp earlier than the real limit of 20,
so that random activations reach it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

MODEL_TYPE = "phi3small"

_REAL: dict[str, Any] = {
    "architectures": ["Phi3SmallForCausalLM"],
    "attention_bias": False,
    "attention_dropout_prob": 0.0,
    "blocksparse_block_size": 64,
    "blocksparse_homo_head_pattern": False,
    "blocksparse_num_local_blocks": 16,
    "blocksparse_triton_kernel_block_size": 64,
    "blocksparse_vert_stride": 8,
    "dense_attention_every_n_layers": 2,
    "embedding_dropout_prob": 0.1,
    "ff_dim_multiplier": None,
    "ff_intermediate_size": 14336,
    "ffn_dropout_prob": 0.1,
    "gegelu_limit": 20.0,
    "gegelu_pad_to_256": True,
    "hidden_act": "gegelu",
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-05,
    "max_position_embeddings": 8192,
    "model_type": MODEL_TYPE,
    "mup_attn_multiplier": 1.0,
    "mup_embedding_multiplier": 10.0,
    "mup_use_scaling": True,
    "mup_width_multiplier": 8.0,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "pad_sequence_to_multiple_of_64": True,
    "reorder_and_upcast_attn": False,
    "rope_embedding_base": 1000000,
    "rope_position_scale": 1.0,
    "use_cache": True,
    "vocab_size": 100352,
}
_TINY: dict[str, Any] = {
    **_REAL,
    "blocksparse_block_size": 16,
    "blocksparse_num_local_blocks": 2,
    "blocksparse_triton_kernel_block_size": 16,
    "blocksparse_vert_stride": 4,
    "ff_intermediate_size": 192,
    "gegelu_limit": 1.5,
    "hidden_size": 128,
    "num_attention_heads": 8,
    "num_hidden_layers": 4,
    "num_key_value_heads": 2,
    "vocab_size": 640,
}

SMALL_SHAPES: dict[str, dict[str, Any]] = {
    "phi3-small": _TINY,
    "phi3-small-128k": {
        **_TINY,
        "max_position_embeddings": 131072,
        "rope_scaling": {
            "type": "su",
            "short_factor": [1.0, 1.05, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6],
            "long_factor": [1.0, 1.3, 1.9, 3.1, 6.5, 14.2, 29.3, 48.1],
            "short_mscale": 1.1,
            "long_mscale": 1.25,
            "original_max_position_embeddings": 8192,
        },
    },
    # More strides than heads: heads begin two blocks apart. Heads of 20 channels, which no kernel rotates.
    "phi3-small-odd": {
        **_TINY,
        "blocksparse_vert_stride": 8,
        "hidden_size": 80,
        "ff_intermediate_size": 96,
        "mup_attn_multiplier": 2.0,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "vocab_size": 1003,
    },
    "phi3-small-alike": {**_TINY, "blocksparse_homo_head_pattern": True, "mup_use_scaling": False},
    "phi3-small-full": _REAL,
}


def tensor_shapes(config: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of every tensor, in forward order."""
    hidden, inner = config["hidden_size"], config["ff_intermediate_size"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    rows = (heads + 2 * kv_heads) * (hidden // heads)
    yield "model.embed_tokens.weight", (config["vocab_size"], hidden)
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        for name, shape in {
            "input_layernorm": (hidden,),
            "self_attn.query_key_value": (rows, hidden),
            "self_attn.dense": (hidden, hidden),
            "post_attention_layernorm": (hidden,),
            "mlp.up_proj": (2 * inner, hidden),
            "mlp.down_proj": (hidden, inner),
        }.items():
            yield f"{layer}{name}.weight", shape
            yield f"{layer}{name}.bias", shape[:1]
    yield "model.final_layernorm.weight", (hidden,)
    yield "model.final_layernorm.bias", (hidden,)

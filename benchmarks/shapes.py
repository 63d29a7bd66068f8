"""Configs, in the layout of the Hugging Face hub, for random Phi-3 architecture checkpoints.

Tiny ones keep what makes each real model different (window, rope kind, head counts, tying) and shrink the
rest. Figures of the real models are from their config.json on the hub.
"""

from __future__ import annotations

from typing import Any

from benchmarks.toy_tokenizers import Kind

# microsoft/Phi-4-mini-instruct, config.json, rope_scaling (its short factors are all 1).
PHI4_MINI_LONG_FACTORS = [
    1, 1.118320672, 1.250641126, 1.398617824, 1.564103225, 1.74916897, 1.956131817, 2.187582649, 2.446418898,
    2.735880826, 3.059592084, 3.421605075, 3.826451687, 4.279200023, 4.785517845, 5.351743533, 5.984965424,
    6.693110555, 7.485043894, 8.370679318, 9.36110372, 10.4687158, 11.70738129, 13.09260651, 14.64173252,
    16.37415215, 18.31155283, 20.47818807, 22.90118105, 25.61086418, 28.64115884, 32.03, 32.1, 32.13, 32.23,
    32.6, 32.61, 32.64, 32.66, 32.7, 32.71, 32.93, 32.97, 33.28, 33.49, 33.5, 44.16, 47.77,
]  # fmt: skip


def _longrope(pairs: int) -> dict[str, Any]:
    """Lively factors of the real range: every entry differs, so that a reordered or swapped list shows."""
    step = len(PHI4_MINI_LONG_FACTORS) / pairs
    return {
        "type": "longrope",
        "short_factor": [round(1 + 0.8 * i / pairs, 4) for i in range(pairs)],
        "long_factor": [PHI4_MINI_LONG_FACTORS[int(i * step)] for i in range(pairs)],
    }


_BASE: dict[str, Any] = {
    "architectures": ["Phi3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "embd_pdrop": 0.0,
    "hidden_act": "silu",
    "hidden_size": 128,
    "initializer_range": 0.02,
    "intermediate_size": 256,
    "max_position_embeddings": 4096,
    "model_type": "phi3",
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 4,
    "original_max_position_embeddings": 4096,
    "resid_pdrop": 0.0,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "sliding_window": 2047,
    "tie_word_embeddings": False,
    "use_cache": True,
    "vocab_size": 640,
}
_128K = {"max_position_embeddings": 131072, "sliding_window": 262144}
_16K = {
    "max_position_embeddings": 16384,
    "original_max_position_embeddings": 16384,
    "rope_theta": 250000,
    "sliding_window": None,
}
_PHI4_MINI = {
    **_BASE,
    **_128K,
    "full_attn_mod": 1,
    "interpolate_factor": 1,
    "lm_head_bias": False,
    "mlp_bias": False,
    "partial_rotary_factor": 0.75,
    "tie_word_embeddings": True,
}
_LONG_48 = {"type": "longrope", "short_factor": [1.0] * 48, "long_factor": PHI4_MINI_LONG_FACTORS}

SHAPES: dict[str, dict[str, Any]] = {
    "phi3-mini-4k": _BASE,
    "phi3-mini-128k": {**_BASE, **_128K, "rope_scaling": _longrope(16)},
    "phi3-medium": {**_BASE, "hidden_size": 160, "num_attention_heads": 5, "num_key_value_heads": 1},
    # Head size 48, as the real 96 no power of two.
    "phi3.5-mini": {**_BASE, **_128K, "hidden_size": 192, "rope_scaling": _longrope(24)},
    "phi4": {**_BASE, **_16K, "num_key_value_heads": 1},
    "phi4-mini": {
        **_PHI4_MINI,
        "hidden_size": 192,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "rope_scaling": _longrope(12),
    },
    # heads * head_dim is neither hidden_size nor a multiple of the quantization block.
    "odd-heads": {
        **_BASE,
        **_16K,
        "hidden_size": 96,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "head_dim": 40,
    },
    "odd-vocab": {**_BASE, **_16K, "hidden_size": 64, "num_key_value_heads": 2, "vocab_size": 1003},
    # Three layers; 5 and 7 blocks a row: odd counts, whose packed zero points need padding.
    "uneven": {
        **_BASE,
        **_16K,
        "hidden_size": 160,
        "intermediate_size": 224,
        "num_attention_heads": 5,
        "num_key_value_heads": 1,
        "num_hidden_layers": 3,
    },
    "phi4-mini-full": {
        **_PHI4_MINI,
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_attention_heads": 24,
        "num_key_value_heads": 8,
        "num_hidden_layers": 32,
        "rope_scaling": _LONG_48,
        "vocab_size": 200064,
    },
    # 0.906 billion parameters: what the incumbents still convert on this class of machine.
    "1b": {
        **_PHI4_MINI,
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "num_hidden_layers": 16,
        "rope_scaling": _LONG_48,
        "vocab_size": 65536,
    },
}

TOKENIZERS: dict[str, Kind] = {
    name: "spm" if name.startswith("phi3") else "bpe-cl100k" if name == "phi4" else "bpe" for name in SHAPES
}
"""The kind of tokenizer that the real model of a shape has."""

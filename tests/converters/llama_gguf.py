"""Tiny llama GGUFs, written by the `gguf` package as llama.cpp's converter writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import LlamaConfig, LlamaForCausalLM

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["h e", "l l", "Ġ w", "he ll", "hell o"]
TOKENS = [*SPECIAL, *sorted(ByteLevel.alphabet()), *[m.replace(" ", "") for m in MERGES]]


def model(*, tied: bool = True, seed: int = 0) -> LlamaForCausalLM:
    """Random weights that float16 holds exactly, large enough for logits to differ between tokens."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(TOKENS),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        rope_parameters={"rope_type": "default", "rope_theta": 5000.0},
        rms_norm_eps=1e-5,
        tie_word_embeddings=tied,
    )
    net = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for name, p in net.named_parameters():
            noise = torch.randn_like(p) * 0.2
            p.copy_((1 + noise if "norm" in name else noise).half().float())
    return net


def paired(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of q or k as llama.cpp stores them: the two channels of a rope pair side by side."""
    out = np.empty_like(rows)
    size = rows.shape[0] // heads
    for head in range(heads):
        for i in range(size // 2):
            out[head * size + 2 * i] = rows[head * size + i]
            out[head * size + 2 * i + 1] = rows[head * size + size // 2 + i]
    return out


def write(
    path: Path,
    net: LlamaForCausalLM,
    *,
    keys: dict[str, Any] | None = None,
    tensors: dict[str, np.ndarray] | None = None,
    kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
) -> None:
    """`keys` and `tensors` come on top (a None takes a key away); matrices are stored as `kind`."""
    c = net.config
    values: dict[str, Any] = {
        "llama.block_count": c.num_hidden_layers,
        "llama.context_length": c.max_position_embeddings,
        "llama.embedding_length": c.hidden_size,
        "llama.feed_forward_length": c.intermediate_size,
        "llama.attention.head_count": c.num_attention_heads,
        "llama.attention.head_count_kv": c.num_key_value_heads,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.freq_base": 5000.0,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.token_type": [3 if t in SPECIAL else 1 for t in TOKENS],
        "tokenizer.ggml.merges": MERGES,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.chat_template": "{{ messages[0]['content'] }}",
        **(keys or {}),
    }
    writer = gguf.GGUFWriter(path, values.pop("general.architecture", "llama"))
    for key, value in values.items():
        match value:
            case bool():
                writer.add_bool(key, value)
            case int():
                writer.add_uint32(key, value)
            case float():
                writer.add_float32(key, value)
            case str():
                writer.add_string(key, value)
            case list():
                writer.add_array(key, value)
    for name, data in {**_tensors(net), **(tensors or {})}.items():
        stored = kind if data.ndim == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quants.quantize(data, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _tensors(net: LlamaForCausalLM) -> dict[str, np.ndarray]:
    state = {k: v.detach().numpy() for k, v in net.state_dict().items()}
    c = net.config
    out = {
        "token_embd.weight": state["model.embed_tokens.weight"],
        "output_norm.weight": state["model.norm.weight"],
    }
    if not c.tie_word_embeddings:
        out["output.weight"] = state["lm_head.weight"]
    for i in range(c.num_hidden_layers):
        layer = {k.removeprefix(f"model.layers.{i}."): v for k, v in state.items() if f"layers.{i}." in k}
        out |= {
            f"blk.{i}.attn_norm.weight": layer["input_layernorm.weight"],
            f"blk.{i}.attn_q.weight": paired(layer["self_attn.q_proj.weight"], c.num_attention_heads),
            f"blk.{i}.attn_k.weight": paired(layer["self_attn.k_proj.weight"], c.num_key_value_heads),
            f"blk.{i}.attn_v.weight": layer["self_attn.v_proj.weight"],
            f"blk.{i}.attn_output.weight": layer["self_attn.o_proj.weight"],
            f"blk.{i}.ffn_norm.weight": layer["post_attention_layernorm.weight"],
            f"blk.{i}.ffn_gate.weight": layer["mlp.gate_proj.weight"],
            f"blk.{i}.ffn_up.weight": layer["mlp.up_proj.weight"],
            f"blk.{i}.ffn_down.weight": layer["mlp.down_proj.weight"],
        }
    return out

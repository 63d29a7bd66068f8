"""`genai_config.json`: how onnxruntime-genai finds its way around the graph."""

from __future__ import annotations

from typing import Any

from converters.decoder import Decoder
from converters.hybrid import DifferentialAttention, HybridDecoder
from converters.onnx.limits import REREAD_AT
from converters.onnx.padded_heads import cached_head_dim
from converters.onnx.rotary import needs_long

CONFIG_FILE = "genai_config.json"
GRAPH_FILE = "model.onnx"
CACHE_SLACK = 64
"""Positions that a windowed cache holds beyond its window."""


def genai_config(decoder: Decoder, context_length: int) -> dict[str, Any]:
    """The whole file as data.

    `max_length` is what the KV cache is allocated for at once, so it is the bundle's context and never more.
    """
    end = decoder.eos_token_ids
    model: dict[str, Any] = {
        "type": _model_type(decoder, context_length),
        "bos_token_id": decoder.bos_token_id,
        "eos_token_id": list(end),
        "pad_token_id": end[0] if decoder.pad_token_id is None else decoder.pad_token_id,
        "vocab_size": decoder.vocab_size,
        "context_length": context_length,
        "decoder": {
            "filename": GRAPH_FILE,
            "session_options": {"log_id": "edge", "provider_options": []},
            "head_size": cached_head_dim(decoder),
            "hidden_size": decoder.hidden_size,
            "num_attention_heads": decoder.attention.heads,
            "num_key_value_heads": decoder.attention.kv_heads,
            "num_hidden_layers": len(decoder.layers),
            "inputs": {
                "input_ids": "input_ids",
                "attention_mask": "attention_mask",
                "past_key_names": "past_key_values.%d.key",
                "past_value_names": "past_key_values.%d.value",
            },
            "outputs": {
                "logits": "logits",
                "present_key_names": "present.%d.key",
                "present_value_names": "present.%d.value",
            },
        },
    }
    if isinstance(decoder, HybridDecoder):
        model["decoder"] |= _hybrid(decoder, context_length, model["decoder"])
    if decoder.bos_token_id is None:
        del model["bos_token_id"]
    search = {
        "max_length": context_length,
        "min_length": 0,
        "do_sample": False,
        "num_beams": 1,
        "num_return_sequences": 1,
        "past_present_share_buffer": True,
        "repetition_penalty": 1.0,
        "temperature": 1.0,
        "top_k": 1,
        "top_p": 1.0,
    }
    return {"model": model, "search": search}


def _hybrid(decoder: HybridDecoder, context_length: int, plain: dict[str, Any]) -> dict[str, Any]:
    """What a hybrid's "decoder" says beyond or instead of a `plain` one's. genai finds the layers that have a cache,
    and those that have states, by the names of the graph's inputs."""
    found = {
        "head_size": 2 * decoder.attention.head_dim,
        "num_hidden_layers": decoder.depth,
        "inputs": {**plain["inputs"], **_states("past", "past_key_values")},
        "outputs": {**plain["outputs"], **_states("present", "present")},
    }
    windows = windowed_layers(decoder, context_length)
    if windows:
        # The cache of these layers holds the window and the slack, and is moved once in `slack` tokens.
        found["sliding_window"] = {
            "window_size": decoder.attention.window,
            "cache_slack": CACHE_SLACK,
            "slide_key_value_cache": False,
            "slide_inputs": False,
            "layers": windows,
        }
    return found


def _states(when: str, prefix: str) -> dict[str, str]:
    return {
        f"{when}_conv_names": f"{prefix}.%d.conv_state",
        f"{when}_recurrent_names": f"{prefix}.%d.recurrent_state",
    }


def windowed_layers(decoder: HybridDecoder, context_length: int) -> list[int]:
    """Indices of the layers whose cache is no longer than their window."""
    return [
        index
        for index, block in enumerate(decoder.blocks)
        if isinstance(block.mixer, DifferentialAttention)
        and block.mixer.window is not None
        and block.mixer.window < context_length
    ]


def _model_type(decoder: Decoder, context_length: int) -> str:
    """Of the types of a lone decoder only "phi3" and "phimoe" compute the cache anew at 4,096 positions
    (generators.cpp), and alike. LongRoPE needs that; any other model would stall there for a prefill of 4,097 tokens
    and gain nothing."""
    long = needs_long(decoder.rope, context_length)
    return REREAD_AT.get(decoder.rope.original_context, "phi3") if long else "phi"

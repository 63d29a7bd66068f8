"""`genai_config.json`: how onnxruntime-genai finds its way around the graph."""

from __future__ import annotations

from typing import Any

from converters.decoder import Decoder
from converters.onnx.padded_heads import cached_head_dim
from converters.onnx.rotary import needs_long

CONFIG_FILE = "genai_config.json"
GRAPH_FILE = "model.onnx"


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


def _model_type(decoder: Decoder, context_length: int) -> str:
    """Of the types of a lone decoder only "phi3" and "phimoe" compute the cache anew at 4,096 positions
    (generators.cpp), and alike. LongRoPE needs that; any other model would stall there for a prefill of 4,097 tokens
    and gain nothing."""
    return "phi3" if needs_long(decoder.rope, context_length) else "phi"

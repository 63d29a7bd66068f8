"""`genai_config.json` of a decoder pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from converters.decoder import Decoder
from converters.onnx.genai_config import genai_config
from converters.onnx.npu.stages import HIDDEN_IN, HIDDEN_OUT, PAST, TOTAL, cache_names

PIPELINE_TYPE = "decoder-pipeline"
STAGES = ("embeddings", "context", "iterator", "lm_head")
NPU_STAGES = ("context", "iterator")
"""The others run on the CPU: a table lookup, and one product a token with a table that the CPU has anyway."""


FALLBACK = "session.disable_cpu_ep_fallback"


def npu_config(decoder: Decoder, cache: int, window: int) -> dict[str, Any]:
    """The whole file as data, for a KV cache of `cache` positions.

    `max_length` must be the cache's own length. No provider is named: its options hold paths of one machine, which
    whoever loads the folder gives (`edge.npu.options`). The stages of a context binary name theirs.
    """
    config = genai_config(decoder, cache)
    model = config["model"]
    inputs, outputs = cache_names(decoder, "past_key_values"), cache_names(decoder, "present")
    layers = {"inputs": [HIDDEN_IN, PAST, TOTAL, *inputs], "outputs": [HIDDEN_OUT, *outputs]}
    model["type"] = PIPELINE_TYPE
    # Tokens are counted up to the first padding token: it must be none that a prompt can hold.
    model["pad_token_id"] = decoder.vocab_size
    del model["decoder"]["filename"]
    model["decoder"] |= {
        "inputs": {
            "input_ids": "input_ids",
            "past_sequence_length": PAST,
            "total_sequence_length": TOTAL,
            "past_key_names": "past_key_values.%d.key",
            "past_value_names": "past_key_values.%d.value",
        },
        "sliding_window": {
            "window_size": window,
            "pad_value": 0,
            "alignment": "left",
            "slide_key_value_cache": False,
        },
        "pipeline": [
            {
                "embeddings": {
                    "filename": "embeddings.onnx",
                    "inputs": ["input_ids"],
                    "outputs": [HIDDEN_IN],
                },
                "context": {"filename": "context.onnx", **layers, "run_on_token_gen": False},
                "iterator": {"filename": "iterator.onnx", **layers, "run_on_prompt": False},
                "lm_head": {
                    "filename": "lm_head.onnx",
                    "inputs": [HIDDEN_OUT],
                    "outputs": ["logits"],
                    "is_lm_head": True,
                },
            }
        ],
    }
    return config


def with_provider(
    config: Mapping[str, Any], options: Mapping[str, str] | None, *, allow_cpu: bool = False
) -> dict[str, Any]:
    """`config` whose NPU stages name the QNN provider (None: that is left open) and, unless `allow_cpu`, let nothing
    fall back to the CPU."""
    model = dict(config["model"])
    decoder = dict(model["decoder"])
    stages = dict(decoder["pipeline"][0])
    for stage in NPU_STAGES:
        stages[stage] = {**stages[stage], "session_options": session_options(options, allow_cpu=allow_cpu)}
    return {**config, "model": {**model, "decoder": {**decoder, "pipeline": [stages]}}}


def session_options(options: Mapping[str, str] | None, *, allow_cpu: bool) -> dict[str, Any]:
    """Of an NPU stage, as genai_config.json writes them."""
    provider = {} if options is None else {"provider_options": [{"qnn": dict(options)}]}
    return {"log_id": "edge", **provider, FALLBACK: str(int(not allow_cpu))}

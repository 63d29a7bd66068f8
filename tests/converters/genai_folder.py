"""A folder that onnxruntime-genai opens, with encoders that compute nothing: its preprocessor alone is asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime_genai as og
from numpy.typing import NDArray
from onnx import parser

# The ids that genai 0.18 has compiled in for phi4mm.
SPECIAL = {
    "<|endoftext|>": 199999,
    "<|endoftext10|>": 200010,
    "<|endoftext11|>": 200011,
}

_HEADER = '<ir_version: 9, opset_import: ["" : 20]>'
_GRAPHS = {
    "vision.onnx": """g (float[n, c, 3, h, w] pixel_values, float[n, c, mh, mw] image_attention_mask,
        int64[n, 2] image_sizes) => (float[n, 2] image_features)
        { image_features = Cast<to = 1>(image_sizes) }""",
    "vision3.onnx": """g (float[n, c, 3, h, w] pixel_values, int64[n, 2] image_sizes) => (float[n, 2] image_features)
        { image_features = Cast<to = 1>(image_sizes) }""",
    "speech.onnx": """g (float[b, t, 80] audio_embeds, bool[b, t] audio_attention_mask, int64[b] audio_sizes,
        int64[1] audio_projection_mode) => (float[b, t, 80] audio_features)
        { audio_features = Identity(audio_embeds) }""",
    "embedding.onnx": """g (int64[b, s] input_ids, float[n, 2] image_features, float[m, t, 80] audio_features)
        => (int64[b, s] inputs_embeds) { inputs_embeds = Identity(input_ids) }""",
    "text.onnx": """g (float[b, s, 8] inputs_embeds, int64[b, t] attention_mask, float[b, 1, p, 8] past_key_0,
        float[b, 1, p, 8] past_value_0) => (float[b, s, 8] logits, float[b, 1, p, 8] present_key_0,
        float[b, 1, p, 8] present_value_0)
        { logits = Identity(inputs_embeds)
          present_key_0 = Identity(past_key_0)
          present_value_0 = Identity(past_value_0) }""",
}


def open_processor(
    directory: Path, kind: str, files: dict[str, dict[str, Any]]
) -> Callable[..., og.NamedTensors]:
    """`ask(prompt, images=, audios=)` of a folder of type `kind` ("phi4mm", "phi3v") with the JSON `files`."""
    for name, text in _GRAPHS.items():
        onnx.save(parser.parse_model(f"{_HEADER} {text}"), directory / name)
    contents = {**files, **_tokenizer(), "genai_config.json": _config(kind, *files)}
    for name, content in contents.items():
        (directory / name).write_text(json.dumps(content))
    model = og.Model(str(directory))
    made = model.create_multimodal_processor()

    def ask(prompt: str, **media: Any) -> og.NamedTensors:
        assert model is not None  # The processor points into it: it must not go first.
        return made(prompt, **media)

    return ask


def _config(kind: str, vision_file: str, speech_file: str = "") -> dict[str, Any]:
    multimodal = kind == "phi4mm"
    vision = {"pixel_values": "pixel_values", "image_sizes": "image_sizes"}
    model: dict[str, Any] = {
        "type": kind,
        "vocab_size": 200064,
        "context_length": 4096,
        "eos_token_id": 199999,
        "pad_token_id": 199999,
        "decoder": {
            "filename": "text.onnx",
            "head_size": 8,
            "hidden_size": 8,
            "num_attention_heads": 1,
            "num_key_value_heads": 1,
            "num_hidden_layers": 1,
            "inputs": {
                "inputs_embeds": "inputs_embeds",
                "attention_mask": "attention_mask",
                "past_key_names": "past_key_%d",
                "past_value_names": "past_value_%d",
            },
            "outputs": {
                "logits": "logits",
                "present_key_names": "present_key_%d",
                "present_value_names": "present_value_%d",
            },
        },
        "embedding": {
            "filename": "embedding.onnx",
            "inputs": {n: n for n in ("input_ids", "image_features", "audio_features")},
            "outputs": {"inputs_embeds": "inputs_embeds"},
        },
        "vision": {
            "filename": "vision.onnx" if multimodal else "vision3.onnx",
            "config_filename": vision_file,
            "inputs": {**vision, "attention_mask": "image_attention_mask"} if multimodal else vision,
            "outputs": {"image_features": "image_features"},
        },
    }
    if multimodal:
        model["speech"] = {
            "filename": "speech.onnx",
            "config_filename": speech_file,
            "inputs": {
                "audio_embeds": "audio_embeds",
                "attention_mask": "audio_attention_mask",
                "audio_sizes": "audio_sizes",
                "audio_projection_mode": "audio_projection_mode",
            },
            "outputs": {"audio_features": "audio_features"},
        }
    return {"model": model, "search": {"max_length": 64}}


def _tokenizer() -> dict[str, dict[str, Any]]:
    special = [{"id": i, "content": text, "special": True} for text, i in SPECIAL.items()]
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "tokenizer.json": {
            "version": "1.0",
            "added_tokens": [{**flags, **token} for token in special],
            "pre_tokenizer": level,
            "decoder": level,
            "model": {"type": "BPE", "vocab": {chr(c): c for c in range(33, 127)}, "merges": []},
        },
        "tokenizer_config.json": {"tokenizer_class": "GPT2Tokenizer", "eos_token": "<|endoftext|>"},
    }


def arrays(named: Any) -> dict[str, NDArray[Any]]:
    """Every tensor that the processor made, copied."""
    return {name: np.array(named[name].as_numpy()) for name in list(named.keys())}

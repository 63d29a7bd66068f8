"""`genai_config.json` of a multimodal variant.

onnxruntime-genai 0.18 runs such a folder, one prompt at a time, and never applies an adapter to it: whoever uses it
without this project names the decoder for the prompt's modality with
`Config.overlay({"model": {"decoder": {"filename": "model-vision.onnx"}}})`.
"""

from __future__ import annotations

from typing import Any

from converters.multimodal import Multimodal
from converters.onnx.genai_config import genai_config
from converters.onnx.multimodal.layout import EMBEDDING_GRAPH, SPEECH_GRAPH, VISION_GRAPH

MEDIA_FILE = "media.json"
ANY_NEGATIVE = -1
"""Of a model that takes any negative id for an image."""
VISION_PROCESSOR, SPEECH_PROCESSOR = "vision_processor.json", "speech_processor.json"


def multimodal_config(model: Multimodal, context_length: int) -> dict[str, Any]:
    """The whole file as data."""
    config = genai_config(model.decoder, context_length)
    described = config["model"]
    described["type"] = "phi4mm" if model.speech else "phi3v"
    decoder = described["decoder"]
    decoder["inputs"] = {
        "inputs_embeds": "inputs_embeds",
        **{key: name for key, name in decoder["inputs"].items() if key != "input_ids"},
    }
    features = {}
    if model.vision:
        features["image_features"] = "image_features"
        inputs = {"pixel_values": "pixel_values", "image_sizes": "image_sizes"}
        if model.vision.patch_mask:
            inputs["attention_mask"] = "image_attention_mask"
        described["vision"] = {
            "filename": VISION_GRAPH,
            "config_filename": VISION_PROCESSOR,
            "inputs": inputs,
            "outputs": {"image_features": "image_features"},
        }
    if model.speech:
        features["audio_features"] = "audio_features"
        described["speech"] = {
            "filename": SPEECH_GRAPH,
            "config_filename": SPEECH_PROCESSOR,
            "inputs": {
                "audio_embeds": "audio_embeds",
                "attention_mask": "audio_attention_mask",
                "audio_sizes": "audio_sizes",
                "audio_projection_mode": "audio_projection_mode",
            },
            "outputs": {"audio_features": "audio_features"},
        }
    described["embedding"] = {
        "filename": EMBEDDING_GRAPH,
        "inputs": {"input_ids": "input_ids", **features},
        "outputs": {"inputs_embeds": "inputs_embeds"},
    }
    return config


def media_config(model: Multimodal, num_crops: int) -> dict[str, Any]:
    """`media.json`, by which this project's own runtime prepares files and chooses the decoder.

    num_crops: most crops of an image, where the model does not say itself.
    """
    image = model.vision.token_id if model.vision else None
    return {
        "kind": "phi4mm" if model.speech else "phi3v",
        "image_token": ANY_NEGATIVE if model.vision and image is None else image,
        "audio_token": model.speech.token_id if model.speech else None,
        "crop_size": model.vision.crop_size if model.vision else None,
        "num_crops": num_crops,
        "adapters": [lora.name for lora in model.decoder.adapters],
    }

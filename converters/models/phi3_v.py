"""Phi-3-vision and Phi-3.5-vision: a Phi-3 decoder and a CLIP encoder.

What the keys mean is what the checkpoints' own modeling_phi3_v.py computes with them. The encoder's sizes stand only
in that code and the tensors. Images come as negative input ids, one for each feature.
"""

from __future__ import annotations

from converters.checkpoint import Checkpoint
from converters.clip import read_clip
from converters.encoders import Vision
from converters.errors import CheckpointError
from converters.model_parts import expect_architecture
from converters.models.phi3 import read_decoder
from converters.multimodal import Multimodal
from converters.strict_config import StrictConfig
from converters.tensor_map import TensorMap

ARCHITECTURE = "Phi3VForCausalLM"
_ENCODER = "model.vision_embed_tokens"


def describe(checkpoint: Checkpoint) -> Multimodal:
    """The whole model; errors as `converters.models.describe`."""
    expect_architecture(checkpoint, ARCHITECTURE)
    config, tensors = StrictConfig(checkpoint.config), TensorMap(checkpoint)
    names = ("phi3_v", ARCHITECTURE)
    decoder = read_decoder(checkpoint, config, tensors, names=names)
    layer = config.section("embd_layer")
    layer.require("embedding_cls", "image")
    layer.require("hd_transform_order", "sub_glb")
    layer.require("projection_cls", "mlp")
    layer.require("use_hd_transform", True)
    layer.require("with_learnable_separator", True)
    layer.finish()
    vision = read_clip(tensors, _ENCODER, decoder.hidden_size)
    _check(config.section("img_processor"), vision)
    config.finish()
    tensors.finish()
    return Multimodal(decoder, vision, speech=None)


def _check(config: StrictConfig, vision: Vision) -> None:
    config.require("name", "clip_vision_model")
    config.expect("layer_idx", -2)
    config.expect("type_feature", "patch")
    config.take("model_name")
    said = (config.integer("image_dim_out"), config.integer("num_img_tokens", (vision.side // 2) ** 2))
    config.finish()
    if said != (vision.hidden_size, (vision.side // 2) ** 2):
        raise CheckpointError(
            f"config.json: img_processor has {said[0]} channels and {said[1]} tokens a crop, the tensors "
            f"{vision.hidden_size} and {(vision.side // 2) ** 2}",
            hint="compare config.json with the one that the model was published with",
        )

"""Phi-4-multimodal in transformers' own layout (`Phi4MultimodalForCausalLM`), adapters as PEFT folders beside it.

What the keys mean is what transformers' models/phi4_multimodal computes with them; where it masks speech in another
way than the original, the original holds (converters.encoder_reference).
"""

from __future__ import annotations

from converters import peft
from converters.checkpoint import Checkpoint
from converters.conformer import Names as SpeechNames
from converters.conformer import Sizes, read_conformer
from converters.encoders import Speech, Vision
from converters.model_parts import expect_architecture
from converters.models.phi3 import read_decoder
from converters.models.phi4mm import AUDIO_TOKEN, IMAGE_TOKEN
from converters.multimodal import Multimodal
from converters.siglip import NORM_EPS, read_siglip
from converters.siglip import Names as VisionNames
from converters.strict_config import NEUTRAL, StrictConfig
from converters.tensor_map import TensorMap
from converters.vision_tensors import TowerSizes

ARCHITECTURE = "Phi4MultimodalForCausalLM"
ADAPTER_FOLDERS = {"vision": "vision-lora", "speech": "speech-lora"}
_ENCODERS = "model.embed_tokens_extend"
_VISION_NAMES = VisionNames(
    "sub_img_feature_extensor",
    "global_img_feature_extensor",
    ("img_projection_up", "img_projection_down"),
)
_SPEECH_NAMES = SpeechNames(
    attention=("q_proj", "k_proj", "v_proj", "o_proj"),
    up_gate="gate_up_proj",
    down="down_proj",
    speech_projection=("up_proj_for_speech", "down_proj_for_speech"),
    vision_projection=("up_proj_for_vision_speech", "down_proj_for_vision_speech"),
)


def describe(checkpoint: Checkpoint) -> Multimodal:
    """The whole model; errors as `converters.models.describe`."""
    expect_architecture(checkpoint, ARCHITECTURE)
    config, tensors = StrictConfig(checkpoint.config), TensorMap(checkpoint)
    names = ("phi4_multimodal", ARCHITECTURE)
    decoder = read_decoder(checkpoint, config, tensors, names=names)
    vision = _vision(config.section("vision_config"), tensors, decoder.hidden_size)
    speech = _speech(config.section("audio_config"), tensors, decoder.hidden_size)
    config.finish()
    tensors.finish()
    for name, folder in ADAPTER_FOLDERS.items():
        if (checkpoint.directory / folder).is_dir():
            decoder = peft.attach(checkpoint, decoder, checkpoint.directory / folder, name)
    return Multimodal(decoder, vision, speech)


def _vision(config: StrictConfig, tensors: TensorMap, output_size: int) -> Vision:
    crop_size, patch = config.integer("crop_size", 448), config.integer("patch_size", 14)
    config.expect("image_size", crop_size)
    config.expect("feature_layer", -2)
    config.expect("hidden_act", "gelu_pytorch_tanh")
    config.expect("layer_norm_eps", NORM_EPS)
    config.expect("num_channels", 3)
    # The head, like the last layer, comes after the states that are taken.
    for key in ("vision_use_head", *NEUTRAL):
        config.take(key)
    sizes = TowerSizes(
        hidden=config.integer("hidden_size", 1152),
        inner=config.integer("intermediate_size", 4304),
        layers=config.integer("num_hidden_layers", 27),
        patch=patch,
        positions=(crop_size // patch) ** 2,
    )
    heads, token_id = config.integer("num_attention_heads", 16), config.integer("image_token_id", IMAGE_TOKEN)
    config.finish()
    return read_siglip(
        tensors,
        f"{_ENCODERS}.image_embed",
        _VISION_NAMES,
        sizes,
        crop_size=crop_size,
        heads=heads,
        output_size=output_size,
        token_id=token_id,
    )


def _speech(config: StrictConfig, tensors: TensorMap, output_size: int) -> Speech:
    hidden, mel_bins = config.integer("hidden_size", 1024), config.integer("input_size", 80)
    for key in ("activation", "conv_activation", "conv_glu_type"):
        config.expect(key, "swish")
    config.expect("nemo_activation", "relu")
    for key in ("ext_pw_out_channel", "depthwise_separable_out_channel"):
        if config.integer(key, 1024) != hidden:
            config.require(key, hidden)
    config.expect("time_reduction", 8)
    config.expect("chunk_size", -1)
    config.expect("depthwise_multiplier", 1)
    config.expect("bias_symmetric", False)
    config.expect("downsample_rate", 1)
    # One stretch leaves `left_chunk` nothing to act on; the class takes no layer by `feature_layer`; the final size
    # follows from `input_size`.
    for key in ("left_chunk", "feature_layer", "nemo_final_size", "dropout_rate", *NEUTRAL):
        config.take(key)
    sizes = Sizes(
        hidden=hidden,
        inner=config.integer("intermediate_size", 1536),
        heads=config.integer("num_attention_heads", 16),
        blocks=config.integer("num_blocks", 24),
        mel_bins=mel_bins,
        channels=config.integer("nemo_conv_channels", 1024),
        kernel=config.integer("kernel_size", 3),
        max_distance=config.integer("bias_max_distance", 1000),
    )
    token_id = config.integer("audio_token_id", AUDIO_TOKEN)
    config.finish()
    return read_conformer(
        tensors,
        f"{_ENCODERS}.audio_embed",
        _SPEECH_NAMES,
        sizes,
        output_size=output_size,
        token_id=token_id,
    )

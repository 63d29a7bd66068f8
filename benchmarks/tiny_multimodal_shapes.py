"""Configs and tensor names of the multimodal models, at tiny sizes; the real figures are in the comments.

Figures and keys of the real models: config.json of microsoft/Phi-4-multimodal-instruct and of
microsoft/Phi-3.5-vision-instruct, and for the vision encoders the code beside them.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.random_checkpoint import tensor_shapes
from benchmarks.shapes import SHAPES

Shapes = dict[str, tuple[int, ...]]

# Crops of 448 pixels, 1152 channels, 4304 inside (no multiple of 32, as here), 27 layers; 336, 1024, 4096, 24 in
# Phi-3-vision.
CROP, PATCH, CHANNELS, INNER, LAYERS = 112, 14, 64, 80, 3
# Rank and alpha: 256, 512 and 320, 640.
ADAPTERS = {"vision": (8, 16), "speech": (12, 24)}
_TARGETS = ("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj")

_PHI4_TEXT: dict[str, Any] = {
    **SHAPES["phi4-mini"],
    "bos_token_id": 199999,
    "eos_token_id": 199999,
    "hidden_size": 128,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "pad_token_id": 199999,
    "rope_scaling": {
        "type": "longrope",
        "short_factor": [round(1 + i / 24, 4) for i in range(24)],
        "long_factor": [1.0 + i for i in range(24)],
    },
    "torch_dtype": "bfloat16",
    "vocab_size": 200064,
}
# 1024 channels, 16 heads, 1536 inside, 24 blocks, 1024 channels in the convolutions, distance 500.
_CONFORMER: dict[str, Any] = {
    "activation": "swish",
    "activation_checkpointing": {"interval": 1, "module": "transformer", "offload": False},
    "attention_dim": 64,
    "attention_heads": 4,
    "batch_norm": False,
    "bias_in_glu": True,
    "causal": True,
    "chunk_size": -1,
    "cnn_layer_norm": True,
    "conv_activation": "swish",
    "conv_glu_type": "swish",
    "depthwise_multiplier": 1,
    "depthwise_seperable_out_channel": 64,
    "dropout_rate": 0.0,
    "encoder_embedding_config": {"input_size": 80},
    "ext_pw_kernel_size": 1,
    "ext_pw_out_channel": 64,
    "input_layer": "nemo_conv",
    "input_size": 80,
    "kernel_size": 3,
    "left_chunk": 18,
    "linear_units": 96,
    "nemo_conv_settings": {"conv_channels": 16},
    "num_blocks": 2,
    "relative_attention_bias_args": {"t5_bias_max_distance": 20, "type": "t5"},
    "time_reduction": 8,
}


def _lora(name: str) -> dict[str, Any]:
    rank, alpha = ADAPTERS[name]
    layers = "layers.*((self_attn\\.(qkv_proj|o_proj))|(mlp\\.(gate_up|down)_proj))"
    return {"dp": 0.0, "layer": layers, "lora_alpha": alpha, "r": rank}


_PHI4MM: dict[str, Any] = {
    **_PHI4_TEXT,
    "architectures": ["Phi4MMForCausalLM"],
    "audio_processor": {"config": _CONFORMER, "name": "cascades"},
    "embd_layer": {
        "audio_embd_layer": {
            "compression_rate": 8,
            "downsample_rate": 1,
            "embedding_cls": "audio",
            "enable_gradient_checkpointing": True,
            "projection_cls": "mlp",
            "use_conv_downsample": False,
            "use_qformer": False,
        },
        "embedding_cls": "image_audio",
        "image_embd_layer": {
            "crop_size": CROP,
            "embedding_cls": "tune_image",
            "enable_gradient_checkpointing": True,
            "hd_transform_order": "sub_glb",
            "image_token_compression_cls": "avg_pool_2d",
            "projection_cls": "mlp",
            "use_hd_transform": True,
            "with_learnable_separator": True,
        },
    },
    "model_type": "phi4mm",
    "speech_lora": _lora("speech"),
    "vision_lora": _lora("vision"),
}
_NATIVE: dict[str, Any] = {
    **_PHI4_TEXT,
    "architectures": ["Phi4MultimodalForCausalLM"],
    "audio_config": {
        "activation": "swish",
        "audio_token_id": 200011,
        "bias_max_distance": 20,
        "bias_symmetric": False,
        "chunk_size": -1,
        "conv_activation": "swish",
        "conv_glu_type": "swish",
        "depthwise_multiplier": 1,
        "depthwise_separable_out_channel": 64,
        "downsample_rate": 1,
        "dropout_rate": 0.0,
        "ext_pw_out_channel": 64,
        "feature_layer": -2,
        "hidden_size": 64,
        "initializer_range": 0.02,
        "input_size": 80,
        "intermediate_size": 96,
        "kernel_size": 3,
        "left_chunk": 18,
        "model_type": "phi4_multimodal_audio",
        "nemo_activation": "relu",
        "nemo_conv_channels": 16,
        "nemo_final_size": 10,
        "num_attention_heads": 4,
        "num_blocks": 2,
        "time_reduction": 8,
    },
    "eos_token_id": [199999, 200020],
    "model_type": "phi4_multimodal",
    "vision_config": {
        "attention_dropout": 0.0,
        "crop_size": CROP,
        "feature_layer": -2,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_size": CHANNELS,
        "image_size": CROP,
        "image_token_id": 200010,
        "intermediate_size": INNER,
        "layer_norm_eps": 1e-06,
        "model_type": "phi4_multimodal_vision",
        "num_attention_heads": 16,
        "num_channels": 3,
        "num_hidden_layers": LAYERS,
        "patch_size": PATCH,
    },
}
_PHI3_V: dict[str, Any] = {
    **SHAPES["phi3-mini-128k"],
    "architectures": ["Phi3VForCausalLM"],
    "bos_token_id": 1,
    "embd_layer": {
        "embedding_cls": "image",
        "hd_transform_order": "sub_glb",
        "projection_cls": "mlp",
        "use_hd_transform": True,
        "with_learnable_separator": True,
    },
    "eos_token_id": 2,
    "img_processor": {
        "image_dim_out": CHANNELS,
        "model_name": "openai/clip-vit-large-patch14-336",
        "name": "clip_vision_model",
        "num_img_tokens": (CROP // PATCH // 2) ** 2,
    },
    "model_type": "phi3_v",
    "rope_scaling": {**SHAPES["phi3-mini-128k"]["rope_scaling"], "type": "su"},
    "torch_dtype": "bfloat16",
}
CONFIGS = {"phi4mm": _PHI4MM, "phi4_multimodal": _NATIVE, "phi3_v": _PHI3_V}


def config_of(layout: str, crop: int) -> dict[str, Any]:
    """The config of a layout with crops of `crop` pixels."""
    config = copy.deepcopy(CONFIGS[layout])
    if layout == "phi4mm":
        config["embd_layer"]["image_embd_layer"]["crop_size"] = crop
    elif layout == "phi4_multimodal":
        config["vision_config"] |= {"crop_size": crop, "image_size": crop}
    else:
        config["img_processor"]["num_img_tokens"] = (crop // PATCH // 2) ** 2
    return config


_NATIVE_NAMES = (
    (r"\.base_layer\.", "."),
    (r"\.glb_GN$", ".global_img_feature_extensor"),
    (r"\.sub_GN$", ".sub_img_feature_extensor"),
    (r"\.img_projection\.0\.", ".img_projection_up."),
    (r"\.img_projection\.2\.", ".img_projection_down."),
    (r"\.audio_projection\.speech\.0\.", ".up_proj_for_speech."),
    (r"\.audio_projection\.speech\.2\.", ".down_proj_for_speech."),
    (r"\.audio_projection\.vision\.0\.", ".up_proj_for_vision_speech."),
    (r"\.audio_projection\.vision\.2\.", ".down_proj_for_vision_speech."),
    (r"\.net\.0\.linear\.", ".gate_up_proj."),
    (r"\.net\.2\.", ".down_proj."),
    (r"\.linear_out\.", ".o_proj."),
    (r"\.linear_([qkv])\.", r".\1_proj."),
)


def native_name(name: str) -> str:
    """What transformers calls a tensor of the original layout."""
    for pattern, replacement in _NATIVE_NAMES:
        name = re.sub(pattern, replacement, name)
    return name


@dataclass(frozen=True)
class Tower:
    """Sizes of a vision encoder, which no config holds."""

    channels: int = CHANNELS
    inner: int = INNER
    layers: int = LAYERS


def full_config(layers: int) -> tuple[dict[str, Any], Tower]:
    """Phi-4-multimodal at its true width, with `layers` layers in each of its parts."""
    config = config_of("phi4mm", 448)
    text = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
    config |= {key: SHAPES["phi4-mini-full"][key] for key in text} | {"num_hidden_layers": layers}
    factors = [1.0 + i / 48 for i in range(48)]
    config["rope_scaling"] |= {"short_factor": factors, "long_factor": [2 * each for each in factors]}
    config["vision_lora"] |= {"r": 256, "lora_alpha": 512}
    config["speech_lora"] |= {"r": 320, "lora_alpha": 640}
    config["audio_processor"]["config"] |= {
        "attention_dim": 1024, "attention_heads": 16, "depthwise_seperable_out_channel": 1024,
        "ext_pw_out_channel": 1024, "linear_units": 1536, "nemo_conv_settings": {"conv_channels": 1024},
        "num_blocks": layers, "relative_attention_bias_args": {"t5_bias_max_distance": 500, "type": "t5"},
    }  # fmt: skip
    return config, Tower(1152, 4304, layers)


def phi4mm_shapes(config: dict[str, Any], tower: Tower = Tower()) -> Shapes:
    """Name and shape of every tensor of the original Phi-4-multimodal, whose config this is."""
    crop = config["embd_layer"]["image_embd_layer"]["crop_size"]
    shapes: Shapes = {}
    for name, shape in tensor_shapes(config):
        module = name.removesuffix(".weight")
        if not module.endswith(_TARGETS):
            shapes[name] = shape
            continue
        shapes[f"{module}.base_layer.weight"] = shape
        for adapter in ADAPTERS:
            rank = config[f"{adapter}_lora"]["r"]
            shapes[f"{module}.lora_A.{adapter}.weight"] = (rank, shape[1])
            shapes[f"{module}.lora_B.{adapter}.weight"] = (shape[0], rank)
    image = "model.embed_tokens_extend.image_embed"
    shapes |= dict(_tower(f"{image}.img_processor", tower, positions=(crop // PATCH) ** 2))
    shapes[f"{image}.img_processor.embeddings.patch_embedding.bias"] = (tower.channels,)
    shapes |= dict(_pooling_head(f"{image}.img_processor.head", tower))
    shapes |= dict(_merging(image, tower.channels, config["hidden_size"]))
    audio = "model.embed_tokens_extend.audio_embed"
    shapes |= dict(_conformer(f"{audio}.encoder", config["audio_processor"]["config"]))
    width = config["audio_processor"]["config"]["attention_dim"]
    for mode in ("speech", "vision"):
        shapes |= dict(_linear(f"{audio}.audio_projection.{mode}.0", config["hidden_size"], width))
        shapes |= dict(
            _linear(f"{audio}.audio_projection.{mode}.2", config["hidden_size"], config["hidden_size"])
        )
    return shapes


def phi3_v_shapes(config: dict[str, Any]) -> Shapes:
    """Name and shape of every tensor of Phi-3-vision."""
    shapes: Shapes = dict(tensor_shapes(config))
    image = "model.vision_embed_tokens"
    tower = f"{image}.img_processor.vision_model"
    shapes |= dict(_tower(tower, Tower(), positions=4 * config["img_processor"]["num_img_tokens"] + 1))
    shapes[f"{tower}.embeddings.class_embedding"] = (CHANNELS,)
    shapes |= dict(_norm(f"{tower}.pre_layrnorm", CHANNELS))
    return shapes | dict(_merging(image, 4 * CHANNELS, config["hidden_size"]))


_Named = Iterator[tuple[str, tuple[int, ...]]]


def _linear(name: str, *shape: int) -> _Named:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]


def _norm(name: str, size: int) -> _Named:
    yield from _linear(name, size)


def _tower(name: str, sizes: Tower, *, positions: int) -> _Named:
    channels, inner = sizes.channels, sizes.inner
    yield f"{name}.embeddings.patch_embedding.weight", (channels, 3, PATCH, PATCH)
    yield f"{name}.embeddings.position_embedding.weight", (positions, channels)
    for i in range(sizes.layers):
        layer = f"{name}.encoder.layers.{i}"
        for norm in ("layer_norm1", "layer_norm2"):
            yield from _norm(f"{layer}.{norm}", channels)
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from _linear(f"{layer}.self_attn.{part}", channels, channels)
        yield from _linear(f"{layer}.mlp.fc1", inner, channels)
        yield from _linear(f"{layer}.mlp.fc2", channels, inner)
    yield from _norm(f"{name}.post_layernorm", channels)


def _pooling_head(name: str, sizes: Tower) -> _Named:
    channels, inner = sizes.channels, sizes.inner
    yield f"{name}.probe", (1, 1, channels)
    yield f"{name}.attention.in_proj_weight", (3 * channels, channels)
    yield f"{name}.attention.in_proj_bias", (3 * channels,)
    yield from _linear(f"{name}.attention.out_proj", channels, channels)
    yield from _norm(f"{name}.layernorm", channels)
    yield from _linear(f"{name}.mlp.fc1", inner, channels)
    yield from _linear(f"{name}.mlp.fc2", channels, inner)


def _merging(name: str, width: int, hidden: int) -> _Named:
    yield f"{name}.glb_GN", (1, 1, width)
    yield f"{name}.sub_GN", (1, 1, 1, width)
    yield from _linear(f"{name}.img_projection.0", hidden, width)
    yield from _linear(f"{name}.img_projection.2", hidden, hidden)


def _conformer(name: str, config: dict[str, Any]) -> _Named:
    width, inner, bands = config["attention_dim"], config["linear_units"], config["input_size"]
    channels = config["nemo_conv_settings"]["conv_channels"]
    distance = config["relative_attention_bias_args"]["t5_bias_max_distance"]
    yield f"{name}.encoder_embedding.global_mean", (bands,)
    yield f"{name}.encoder_embedding.global_invstd", (bands,)
    yield from _linear(f"{name}.embed.conv.0", channels, 1, 3, 3)
    for i in (2, 5):
        yield from _linear(f"{name}.embed.conv.{i}", channels, 1, 3, 3)
        yield from _linear(f"{name}.embed.conv.{i + 1}", channels, channels, 1, 1)
    yield from _linear(f"{name}.embed.out", width, channels * bands // 8)
    yield (
        f"{name}.relative_attention_bias_layer.bias_values.weight",
        (2 * distance, config["attention_heads"]),
    )
    for i in range(config["num_blocks"]):
        block = f"{name}.encoders.{i}"
        for side in ("in", "out"):
            yield from _norm(f"{block}.feed_forward_{side}.layer_norm", width)
            yield from _linear(f"{block}.feed_forward_{side}.net.0.linear", 2 * inner, width)
            yield from _linear(f"{block}.feed_forward_{side}.net.2", width, inner)
        for part in ("q", "k", "v", "out"):
            yield from _linear(f"{block}.self_attn.linear_{part}", width, width)
        yield from _norm(f"{block}.conv.layer_norm", width)
        yield f"{block}.conv.glu.b1", (1, width, 1)
        yield f"{block}.conv.glu.b2", (1, width, 1)
        yield from _linear(f"{block}.conv.glu.ext_pw_conv_1d", 2 * width, width, 1)
        yield from _linear(f"{block}.conv.dw_sep_conv_1d.dw_conv", width, 1, config["kernel_size"])
        yield from _linear(f"{block}.conv.dw_sep_conv_1d.pw_conv", width, width, 1)
        yield from _linear(f"{block}.conv.ext_pw_conv_1d", width, width, 1)
        yield from _norm(f"{block}.layer_norm_att", width)
        yield from _norm(f"{block}.layer_norm", width)

"""Phi-4-multimodal as Microsoft published it (arXiv 2503.01743): decoder, SigLIP, conformer, and two adapters.

What the keys mean is what the checkpoint's own modeling_phi4mm.py, speech_conformer_encoder.py and
vision_siglip_navit.py compute with them. The sizes of the vision encoder stand only in that code and the tensors.
"""

from __future__ import annotations

from dataclasses import replace

from converters.checkpoint import Checkpoint
from converters.conformer import Names as SpeechNames
from converters.conformer import Sizes, read_conformer
from converters.decoder import Decoder, Lora, LoraPair, Rows, Weight
from converters.encoders import Speech, Vision
from converters.model_parts import expect_architecture
from converters.models.phi3 import read_decoder
from converters.multimodal import Multimodal
from converters.siglip import Names as VisionNames
from converters.siglip import read_siglip
from converters.strict_config import StrictConfig
from converters.tensor_map import TensorMap
from converters.vision_tensors import sizes_of

ARCHITECTURE = "Phi4MMForCausalLM"
IMAGE_TOKEN, AUDIO_TOKEN = 200010, 200011
"""<|endoftext10|> and <|endoftext11|>."""
_VISION_HEADS = 16
_ENCODERS = "model.embed_tokens_extend"
_ADAPTERS = ("vision", "speech")
_VISION_NAMES = VisionNames("sub_GN", "glb_GN", ("img_projection.0", "img_projection.2"))
_SPEECH_NAMES = SpeechNames(
    attention=("linear_q", "linear_k", "linear_v", "linear_out"),
    up_gate="net.0.linear",
    down="net.2",
    speech_projection=("audio_projection.speech.0", "audio_projection.speech.2"),
    vision_projection=("audio_projection.vision.0", "audio_projection.vision.2"),
)


def describe(checkpoint: Checkpoint) -> Multimodal:
    """The whole model; errors as `converters.models.describe`."""
    expect_architecture(checkpoint, ARCHITECTURE)
    config, tensors = StrictConfig(checkpoint.config), TensorMap(checkpoint)
    names = ("phi4mm", ARCHITECTURE)

    def stacked(source: str, columns: int, rows: dict[str, int]) -> list[Weight]:
        return tensors.stacked(f"{source}.base_layer.weight", columns, rows)

    decoder = read_decoder(checkpoint, config, tensors, names=names, stacked=stacked)
    adapters = tuple(_adapter(config, tensors, decoder, name) for name in _ADAPTERS)
    embedding = config.section("embd_layer")
    embedding.require("embedding_cls", "image_audio")
    vision = _vision(config, embedding.section("image_embd_layer"), tensors, decoder.hidden_size)
    speech = _speech(config, embedding.section("audio_embd_layer"), tensors, decoder.hidden_size)
    embedding.finish()
    config.finish()
    tensors.finish()
    return Multimodal(replace(decoder, adapters=adapters), vision, speech)


def _vision(config: StrictConfig, layer: StrictConfig, tensors: TensorMap, output_size: int) -> Vision:
    config.expect("img_processor")
    layer.require("embedding_cls", "tune_image")
    layer.require("hd_transform_order", "sub_glb")
    layer.require("image_token_compression_cls", "avg_pool_2d")
    layer.require("projection_cls", "mlp")
    layer.require("use_hd_transform", True)
    layer.require("with_learnable_separator", True)
    # Of training.
    layer.take("enable_gradient_checkpointing")
    layer.take("freeze_img_processor")
    crop_size = layer.integer("crop_size")
    layer.finish()
    prefix = f"{_ENCODERS}.image_embed"
    return read_siglip(
        tensors,
        prefix,
        _VISION_NAMES,
        sizes_of(tensors, f"{prefix}.img_processor"),
        crop_size=crop_size,
        heads=_VISION_HEADS,
        output_size=output_size,
        token_id=IMAGE_TOKEN,
    )


def _speech(config: StrictConfig, layer: StrictConfig, tensors: TensorMap, output_size: int) -> Speech:
    layer.require("embedding_cls", "audio")
    layer.require("projection_cls", "mlp")
    layer.expect("compression_rate", 8)
    layer.expect("downsample_rate", 1)
    layer.expect("use_conv_downsample", False)
    layer.expect("use_qformer", False)
    layer.take("enable_gradient_checkpointing")
    layer.take("freeze_audio_processor")
    layer.finish()
    processor = config.section("audio_processor")
    processor.require("name", "cascades")
    sizes = _speech_sizes(processor.section("config"))
    processor.finish()
    prefix = f"{_ENCODERS}.audio_embed"
    return read_conformer(
        tensors, prefix, _SPEECH_NAMES, sizes, output_size=output_size, token_id=AUDIO_TOKEN
    )


def _speech_sizes(config: StrictConfig) -> Sizes:
    hidden, mel_bins = config.integer("attention_dim"), config.integer("input_size")
    for key in ("activation", "conv_activation", "conv_glu_type"):
        config.require(key, "swish")
    for key in ("ext_pw_out_channel", "depthwise_seperable_out_channel"):
        config.require(key, hidden)
    config.require("time_reduction", 8)
    # One stretch: `left_chunk` then has nothing to act on.
    config.require("chunk_size", -1)
    config.expect("causal", True)
    config.expect("bias_in_glu", True)
    config.expect("batch_norm", False)
    config.expect("input_layer", "nemo_conv")
    config.expect("depthwise_multiplier", 1)
    config.expect("ext_pw_kernel_size", 1)
    # Of training, and one that the code takes and does not use.
    for key in ("activation_checkpointing", "cnn_layer_norm", "dropout_rate", "left_chunk"):
        config.take(key)
    normed = config.section("encoder_embedding_config")
    normed.require("input_size", mel_bins)
    normed.finish()
    bias = config.section("relative_attention_bias_args")
    bias.require("type", "t5")
    bias.expect("t5_bias_symmetric", False)
    max_distance = bias.integer("t5_bias_max_distance", 1000)
    bias.finish()
    convolutions = config.section("nemo_conv_settings")
    channels = convolutions.integer("conv_channels", 256)
    convolutions.finish()
    sizes = Sizes(
        hidden=hidden,
        inner=config.integer("linear_units", 2048),
        heads=config.integer("attention_heads", 4),
        blocks=config.integer("num_blocks", 6),
        mel_bins=mel_bins,
        channels=channels,
        kernel=config.integer("kernel_size", 3),
        max_distance=max_distance,
    )
    config.finish()
    return sizes


def _adapter(config: StrictConfig, tensors: TensorMap, decoder: Decoder, name: str) -> Lora:
    """Both halves of an update lie beside the layer's tensor: lora_A.NAME, lora_B.NAME."""
    section = config.section(f"{name}_lora")
    rank, alpha = section.integer("r"), section.number("lora_alpha")
    # Dropout is of training; which layers it names, the tensors say.
    section.take("dp")
    section.take("layer")
    section.finish()
    stacks: dict[str, list[Weight]] = {}
    for weight in (weight for layer in decoder.layers for weight in layer.weights() if weight.is_matrix):
        stacks.setdefault(weight.parts[0].tensor, []).append(weight)
    pairs: list[LoraPair] = []
    for tensor, weights in stacks.items():
        module = tensor.removesuffix(".base_layer.weight")
        down, up = (f"{module}.lora_{half}.{name}.weight" for half in "AB")
        a = tensors.whole(f"{name}:{module}.lora_A", down, rank, weights[0].shape[1])
        tensors.check(up, sum(weight.rows for weight in weights), rank)
        for weight in weights:
            rows = weight.parts[0]
            b = Weight(
                f"{name}:{weight.name}.lora_B", (weight.rows, rank), (Rows(up, rows.start, rows.stop),)
            )
            pairs.append(LoraPair(weight.name, a, b, alpha / rank))
    return Lora(name, tuple(pairs))

"""The speech encoder of Phi-4-multimodal (its `speech_conformer_encoder.py`) from the tensors of a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass

from converters.encoder_tensors import layer_norm, linear, projection
from converters.encoders import (
    ConformerBlock,
    ConvModule,
    GatedFeedForward,
    Linear,
    SelfAttention,
    Speech,
    Subsampling,
)
from converters.errors import UnsupportedError
from converters.tensor_map import TensorMap

NORM_EPS = 1e-5
CHUNK = 500
"""Positions (40 seconds) beyond which the encoder attends in stretches."""
HALVINGS = 3
"""Convolutions of stride 2: one position for 8 frames."""


@dataclass(frozen=True)
class Names:
    """Of the tensors that the two layouts of the checkpoint call differently. `attention`: q, k, v, o."""

    attention: tuple[str, str, str, str]
    up_gate: str
    down: str
    speech_projection: tuple[str, str]
    vision_projection: tuple[str, str]


@dataclass(frozen=True)
class Sizes:
    """`channels`: of the convolutions over the frames. `kernel`: points in time of those in the blocks."""

    hidden: int
    inner: int
    heads: int
    blocks: int
    mel_bins: int
    channels: int
    kernel: int
    max_distance: int


def read_conformer(
    tensors: TensorMap, prefix: str, names: Names, sizes: Sizes, *, output_size: int, token_id: int
) -> Speech:
    """The encoder below `prefix`. CheckpointError for a tensor that is missing or does not fit, UnsupportedError for
    heads that do not divide the channels."""
    if sizes.hidden % sizes.heads:
        raise UnsupportedError(
            f"speech encoder: {sizes.hidden} channels in {sizes.heads} heads (only heads of one size)",
            hint="compare config.json with the one that the model was published with",
        )
    source, hidden, channels = f"{prefix}.encoder", sizes.hidden, sizes.channels
    convolutions, bands = f"{source}.embed.conv", sizes.mel_bins
    for _ in range(HALVINGS):
        bands = (bands + 1) // 2

    def projected(name: str, layers: tuple[str, str]) -> tuple[str, tuple[str, str]]:
        return f"speech.{name}", (f"{prefix}.{layers[0]}", f"{prefix}.{layers[1]}")

    return Speech(
        mel_bins=sizes.mel_bins,
        hidden_size=hidden,
        output_size=output_size,
        heads=sizes.heads,
        norm_eps=NORM_EPS,
        max_distance=sizes.max_distance,
        chunk=CHUNK,
        token_id=token_id,
        mean=tensors.whole("speech.mean", f"{source}.encoder_embedding.global_mean", sizes.mel_bins),
        inverse_deviation=tensors.whole(
            "speech.inverse_deviation", f"{source}.encoder_embedding.global_invstd", sizes.mel_bins
        ),
        first=_kernel(tensors, "speech.first", f"{convolutions}.0", channels, 1, 3, 3),
        subsampling=tuple(
            Subsampling(
                # Every third module is the ReLU.
                _kernel(
                    tensors,
                    f"speech.subsampling.{i}.depthwise",
                    f"{convolutions}.{3 * i + 2}",
                    channels,
                    1,
                    3,
                    3,
                ),
                _kernel(
                    tensors,
                    f"speech.subsampling.{i}.pointwise",
                    f"{convolutions}.{3 * i + 3}",
                    channels,
                    channels,
                    1,
                    1,
                ),
            )
            for i in range(HALVINGS - 1)
        ),
        subsampled=linear(tensors, "speech.subsampled", f"{source}.embed.out", hidden, channels * bands),
        position_bias=tensors.whole(
            "speech.position_bias",
            f"{source}.relative_attention_bias_layer.bias_values.weight",
            2 * sizes.max_distance,
            sizes.heads,
        ),
        blocks=tuple(
            _block(tensors, f"{source}.encoders.{i}", f"speech.blocks.{i}", names, sizes)
            for i in range(sizes.blocks)
        ),
        speech_projection=projection(
            tensors, *projected("speech_projection", names.speech_projection), hidden, output_size
        ),
        vision_projection=projection(
            tensors, *projected("vision_projection", names.vision_projection), hidden, output_size
        ),
    )


def _block(tensors: TensorMap, source: str, name: str, names: Names, sizes: Sizes) -> ConformerBlock:
    hidden, attention = sizes.hidden, f"{name}.attention"
    q, k, v, o = (
        linear(tensors, f"{attention}.{part}", f"{source}.self_attn.{tensor}", hidden, hidden)
        for part, tensor in zip("qkvo", names.attention, strict=True)
    )

    def feed_forward(side: str) -> GatedFeedForward:
        module, part = f"{source}.feed_forward_{side}", f"{name}.feed_forward_{side}"
        return GatedFeedForward(
            layer_norm(tensors, f"{part}.norm", f"{module}.layer_norm", hidden),
            linear(tensors, f"{part}.up_gate", f"{module}.{names.up_gate}", 2 * sizes.inner, hidden),
            linear(tensors, f"{part}.down", f"{module}.{names.down}", hidden, sizes.inner),
        )

    return ConformerBlock(
        feed_forward_in=feed_forward("in"),
        attention=SelfAttention(
            layer_norm(tensors, f"{attention}.norm", f"{source}.layer_norm_att", hidden), q, k, v, o
        ),
        conv=_conv_module(tensors, f"{source}.conv", f"{name}.conv", sizes),
        feed_forward_out=feed_forward("out"),
        norm=layer_norm(tensors, f"{name}.norm", f"{source}.layer_norm", hidden),
    )


def _conv_module(tensors: TensorMap, source: str, name: str, sizes: Sizes) -> ConvModule:
    hidden = sizes.hidden

    def point(part: str, tensor: str, rows: int) -> Linear:
        return Linear(
            tensors.point(f"{name}.{part}", f"{source}.{tensor}.weight", rows, hidden),
            tensors.whole(f"{name}.{part}.bias", f"{source}.{tensor}.bias", rows),
        )

    return ConvModule(
        norm=layer_norm(tensors, f"{name}.norm", f"{source}.layer_norm", hidden),
        up_gate=point("up_gate", "glu.ext_pw_conv_1d", 2 * hidden),
        up_bias=tensors.whole(f"{name}.up_bias", f"{source}.glu.b1", 1, hidden, 1),
        gate_bias=tensors.whole(f"{name}.gate_bias", f"{source}.glu.b2", 1, hidden, 1),
        depthwise=_kernel(
            tensors, f"{name}.depthwise", f"{source}.dw_sep_conv_1d.dw_conv", hidden, 1, sizes.kernel
        ),
        pointwise=point("pointwise", "dw_sep_conv_1d.pw_conv", hidden),
        output=point("output", "ext_pw_conv_1d", hidden),
    )


def _kernel(tensors: TensorMap, name: str, source: str, *shape: int) -> Linear:
    return Linear(
        tensors.whole(name, f"{source}.weight", *shape),
        tensors.whole(f"{name}.bias", f"{source}.bias", shape[0]),
    )

"""What a vision or speech encoder *is*, free of any file format: sizes and handles to weights, like converters.decoder.

Every matrix is [out, in]. Kernels of convolutions keep their shape; those over time of a single point are matrices.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Literal

from converters.decoder import Weight

Activation = Literal["gelu", "gelu_tanh", "quick_gelu"]
"""GELU (arXiv 1606.08415), its tanh approximation, and x sigmoid(1.702 x)."""


def weights_of(part: object) -> Iterator[Weight]:
    """Every weight below a dataclass of this module, in the order of the fields, which is that of a forward pass."""
    if isinstance(part, Weight):
        yield part
    elif isinstance(part, tuple):
        for item in part:
            yield from weights_of(item)
    elif is_dataclass(part):
        for field in fields(part):
            yield from weights_of(getattr(part, field.name))


@dataclass(frozen=True)
class Linear:
    """y = weight x + bias."""

    weight: Weight
    bias: Weight


@dataclass(frozen=True)
class LayerNorm:
    """arXiv 1607.06450, over the last axis."""

    gain: Weight
    bias: Weight


@dataclass(frozen=True)
class SelfAttention:
    """Every position sees every other; scores are scaled by 1 / sqrt(head size)."""

    norm: LayerNorm
    q: Linear
    k: Linear
    v: Linear
    o: Linear


@dataclass(frozen=True)
class Mlp:
    """down(activation(up(x)))."""

    up: Linear
    down: Linear


@dataclass(frozen=True)
class VisionLayer:
    """x += attention(norm(x)); x += mlp(norm(x))."""

    attention: SelfAttention
    mlp_norm: LayerNorm
    mlp: Mlp


@dataclass(frozen=True)
class Vision:
    """A vision transformer over square crops, and the projection of its features to the decoder's width.

    A crop has `side` x `side` patches; 2 x 2 of them become one feature: their average (`merge` "average"), or all
    four one after the other, row by row ("stack"). An image is its crops in reading order and a thumbnail of the
    whole. Its features: each row of the crops' common grid, ended by `row_end`; `separator`; the thumbnail's rows,
    each ended by `row_end`. `patch_mask`: crops come with a mask of the patches that hold no padding; attention sees
    no others, positions are counted within them, and features of padding are left out.
    `token_id`: the input id in whose place a feature goes; None: any negative id.
    """

    crop_size: int
    patch_size: int
    hidden_size: int
    output_size: int
    heads: int
    norm_eps: float
    activation: Activation
    merge: Literal["average", "stack"]
    patch_mask: bool
    token_id: int | None
    patch: Weight  # [hidden, 3, patch, patch]
    patch_bias: Weight | None
    class_token: Weight | None
    position: Weight  # [1 if there is a class token, and side * side; hidden]
    first_norm: LayerNorm | None
    layers: tuple[VisionLayer, ...]
    row_end: Weight  # [1, 1, 1, width of a feature]
    separator: Weight  # [1, 1, width of a feature]
    projection: Mlp

    @property
    def side(self) -> int:
        return self.crop_size // self.patch_size

    @property
    def feature_size(self) -> int:
        """Channels of a feature before the projection."""
        return self.hidden_size * (4 if self.merge == "stack" else 1)

    def weights(self) -> Iterator[Weight]:
        return weights_of(self)


@dataclass(frozen=True)
class GatedFeedForward:
    """down(u * swish(g)) of the normed input, where `up_gate` gives u over g."""

    norm: LayerNorm
    up_gate: Linear
    down: Linear


@dataclass(frozen=True)
class ConvModule:
    """Over the normed input: (u + up_bias) * swish(g + gate_bias), where `up_gate` gives u over g; a causal
    convolution over time, each channel for itself; `pointwise`; swish; `output`."""

    norm: LayerNorm
    up_gate: Linear
    up_bias: Weight  # [1, hidden, 1]
    gate_bias: Weight  # [1, hidden, 1]
    depthwise: Linear  # [hidden, 1, kernel]
    pointwise: Linear
    output: Linear


@dataclass(frozen=True)
class ConformerBlock:
    """arXiv 2005.08100: x += feed_forward_in(x) / 2; x += attention(x); x += conv(x); x += feed_forward_out(x) / 2;
    norm(x)."""

    feed_forward_in: GatedFeedForward
    attention: SelfAttention
    conv: ConvModule
    feed_forward_out: GatedFeedForward
    norm: LayerNorm


@dataclass(frozen=True)
class Subsampling:
    """A convolution of stride 2 for each channel for itself, then one of a single point; ReLU."""

    depthwise: Linear  # [channels, 1, 3, 3]
    pointwise: Linear  # [channels, channels, 1, 1]


@dataclass(frozen=True)
class Speech:
    """A conformer over log-mel frames, and two projections to the decoder's width.

    Frames [time, mel_bins] become (frame - mean) * inverse_deviation, then one position for every `compression`
    frames (convolutions over time and frequency of stride 2, zeros around), then `subsampled` of all channels and
    frequencies. Attention adds position_bias[clip(key - query, -d, d - 1) + d], d = `max_distance`, and goes over
    stretches of `chunk` positions at most. `token_id`: the input id in whose place a feature goes.
    """

    mel_bins: int
    hidden_size: int
    output_size: int
    heads: int
    norm_eps: float
    max_distance: int
    chunk: int
    token_id: int
    mean: Weight
    inverse_deviation: Weight
    first: Linear  # [channels, 1, 3, 3]
    subsampling: tuple[Subsampling, ...]
    subsampled: Linear
    position_bias: Weight  # [2 d, heads]
    blocks: tuple[ConformerBlock, ...]
    speech_projection: Mlp
    vision_projection: Mlp
    """For speech beside an image."""

    @property
    def compression(self) -> int:
        return int(2 ** (1 + len(self.subsampling)))

    def positions(self, frames: int) -> int:
        """How many positions, and features, `frames` become."""
        return math.ceil(frames / self.compression)

    def weights(self) -> Iterator[Weight]:
        return weights_of(self)

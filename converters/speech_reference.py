"""The independent float32 evaluator of a Speech encoder: what `speech.onnx` is compared with.

It computes what Microsoft's speech_conformer_encoder.py does. transformers' own class adds the mask of padding to the
scores as 1.0 where the original leaves padding out, so the two agree only where nothing is padded.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from converters.checkpoint import Checkpoint
from converters.encoder_forward import attend, layer_norm, linear, mlp, swish
from converters.encoders import ConformerBlock, ConvModule, GatedFeedForward, Linear, Speech
from converters.forward import Floats
from converters.reference import Streamed, Transform


def speech_features(
    checkpoint: Checkpoint,
    speech: Speech,
    frames: Floats,
    sizes: NDArray[np.int64],
    mask: NDArray[np.bool_] | None = None,
    *,
    projection: Literal["speech", "vision"] = "speech",
    transform: Transform | None = None,
) -> Floats:
    """Features of clips, one after the other: float32 [sum of sizes, output_size].

    frames: log-mel, float32 [clips, time, mel_bins]. sizes: features of each clip, `positions(its frames)`. mask
    [clips, time]: which frames are no padding. None, for a clip alone: the original then attends also to the zeros
    that fill the last stretch of a clip of more than `chunk` positions. `transform` as in
    `converters.reference.logits`.
    """
    weights = Streamed(checkpoint, transform)
    states = _subsample(weights, speech, frames)
    clips, length, _ = states.shape
    stretch = min(length, speech.chunk)
    stretches = -(-length // stretch)
    filled = np.zeros((clips, stretches * stretch, speech.hidden_size), np.float32)
    filled[:, :length] = states
    states = filled.reshape(clips * stretches, stretch, -1)
    visible = None
    if mask is not None:
        lengths = -(-mask.sum(axis=1) // speech.compression)
        visible = (np.arange(filled.shape[1]) < lengths[:, None]).reshape(clips * stretches, stretch)
    bias = _position_bias(weights, speech, stretch)
    for block in speech.blocks:
        states = _block(weights, speech, block, states, visible, bias)
    states = states.reshape(clips, -1, speech.hidden_size)
    kept = np.concatenate([states[i, :size] for i, size in enumerate(sizes.tolist())])
    layers = speech.speech_projection if projection == "speech" else speech.vision_projection
    return mlp(weights, layers, kept, "gelu")


def _subsample(weights: Streamed, speech: Speech, frames: Floats) -> Floats:
    """[clips, time, mel_bins] to [clips, positions, hidden]."""
    normed = (frames - weights.whole(speech.mean)) * weights.whole(speech.inverse_deviation)
    image = _halve(weights, speech.first, normed[:, None])
    np.maximum(image, 0, out=image)
    for layer in speech.subsampling:
        image = _halve(weights, layer.depthwise, image)
        kernel = weights.whole(layer.pointwise.weight)[:, :, 0, 0]
        image = np.einsum("oc,bctf->botf", kernel, image, optimize=True)
        image += weights.whole(layer.pointwise.bias)[:, None, None]
        np.maximum(image, 0, out=image)
    clips, channels, length, bands = image.shape
    flat = image.transpose(0, 2, 1, 3).reshape(clips, length, channels * bands)
    return linear(weights, speech.subsampled, flat)


def _halve(weights: Streamed, layer: Linear, image: Floats) -> Floats:
    """A 3 x 3 convolution of stride 2 over [clips, channels or 1, time, bands], zeros around, each channel for
    itself."""
    kernel = weights.whole(layer.weight)
    padded = np.pad(image, ((0, 0), (0, 0), (1, 1), (1, 1)))
    length, bands = ((n + 1) // 2 for n in image.shape[2:])
    total = np.empty((len(image), len(kernel), length, bands), np.float32)
    total[:] = weights.whole(layer.bias)[:, None, None]
    for row in range(3):
        for column in range(3):
            part = padded[:, :, row : row + 2 * length : 2, column : column + 2 * bands : 2]
            total += kernel[:, 0, row, column][:, None, None] * part[:, :, :length, :bands]
    return total


def _position_bias(weights: Streamed, speech: Speech, length: int) -> Floats:
    """[heads, queries, keys]."""
    distance = np.arange(length) - np.arange(length)[:, None]
    rows = np.clip(distance, -speech.max_distance, speech.max_distance - 1) + speech.max_distance
    bias: Floats = weights.whole(speech.position_bias)[rows].transpose(2, 0, 1)
    return bias


def _block(
    weights: Streamed,
    speech: Speech,
    block: ConformerBlock,
    states: Floats,
    visible: NDArray[np.bool_] | None,
    bias: Floats,
) -> Floats:
    half = np.float32(0.5)
    states = states + half * _feed_forward(weights, block.feed_forward_in, states, speech.norm_eps)
    normed = layer_norm(weights, block.attention.norm, states, speech.norm_eps)
    states += attend(weights, block.attention, normed, speech.heads, visible=visible, bias=bias)
    states += _convolve(weights, block.conv, states, speech.norm_eps)
    states += half * _feed_forward(weights, block.feed_forward_out, states, speech.norm_eps)
    return layer_norm(weights, block.norm, states, speech.norm_eps)


def _feed_forward(weights: Streamed, layer: GatedFeedForward, states: Floats, eps: float) -> Floats:
    both = linear(weights, layer.up_gate, layer_norm(weights, layer.norm, states, eps))
    up, gate = np.split(both, 2, axis=-1)
    return linear(weights, layer.down, up * swish(gate))


def _convolve(weights: Streamed, module: ConvModule, states: Floats, eps: float) -> Floats:
    both = linear(weights, module.up_gate, layer_norm(weights, module.norm, states, eps))
    up, gate = np.split(both, 2, axis=-1)
    up = up + weights.whole(module.up_bias).reshape(-1)
    mixed = up * swish(gate + weights.whole(module.gate_bias).reshape(-1))
    kernel = weights.whole(module.depthwise.weight)
    taps, length = kernel.shape[2], states.shape[1]
    padded = np.pad(mixed, ((0, 0), (taps - 1, 0), (0, 0)))
    mixed = sum(padded[:, i : i + length] * kernel[:, 0, i] for i in range(taps)) + weights.whole(
        module.depthwise.bias
    )
    return linear(weights, module.output, swish(linear(weights, module.pointwise, mixed)))

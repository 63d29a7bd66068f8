"""Inputs that encoders are measured on.

The inputs are smooth, as pictures and speech are, and the same on every machine. Real numbers of what rounding costs
come from them only up to what smooth noise can tell: a picture's features vary more.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from converters.checkpoint import Checkpoint
from converters.encoders import Speech, Vision
from converters.forward import Floats
from converters.reference import Streamed

Images = tuple[Floats, NDArray[np.int64], NDArray[np.bool_] | None]
Clips = tuple[Floats, NDArray[np.int64], NDArray[np.bool_]]
_SEED = 5


def probe_images(vision: Vision) -> Images:
    """An image of two crops, with padding at its end where the encoder has a mask, and one of a single crop:
    `image_features`' pixels, sizes and mask."""
    rng, side, size = np.random.default_rng(_SEED), vision.side, vision.crop_size
    waves = np.linspace(0, 2 * np.pi, size, dtype=np.float32)
    pixels = np.zeros((2, 3, 3, size, size), np.float32)
    for plane in pixels.reshape(-1, size, size):
        for _ in range(6):
            down, across = rng.uniform(0.5, 12, 2)
            wave = np.cos(down * waves[:, None] + across * waves + rng.uniform(0, 6))
            plane += 0.3 * wave.astype(np.float32)
    sizes = np.array([[size, 2 * size], [size, size]], np.int64)
    if not vision.patch_mask:
        return np.clip(pixels, -2, 2), sizes, None
    mask = np.ones((2, 3, side, side), np.bool_)
    mask[0, 2, :, side - side // 4 :] = False
    return np.clip(pixels, -1, 1), sizes, mask


def probe_clips(checkpoint: Checkpoint, speech: Speech) -> Clips:
    """Two clips of 3 and 2 seconds: `speech_features`' frames, sizes and mask. Around the mean that the encoder takes
    away, with the deviation that it divides by."""
    rng, weights = np.random.default_rng(_SEED), Streamed(checkpoint)
    lengths = np.array([300, 200])
    mask = np.arange(300) < lengths[:, None]
    noise = rng.standard_normal((2, 304, speech.mel_bins), np.float32)
    # A mean over five frames, of the same variance: speech does not change from one frame to the next.
    smooth = sum(noise[:, i : i + 300] for i in range(5)) / np.float32(np.sqrt(5))
    frames = weights.whole(speech.mean) + smooth / weights.whole(speech.inverse_deviation)
    sizes = np.array([speech.positions(int(n)) for n in lengths], np.int64)
    return (frames * mask[..., None]).astype(np.float32), sizes, mask

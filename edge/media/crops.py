"""A grid of square crops, and the whole grid again as a thumbnail: what both models' encoders see of an image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge.media.image_file import WHITE

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

# Cubic convolution with a = -0.75 (torch's bicubic), half way between two samples; on a sample it is that sample.
_HALF_WAY = np.array([-0.09375, 0.59375, 0.59375, -0.09375], np.float32)


def canvas(
    image: Image.Image, size: tuple[int, int], grid: tuple[int, int], corner: tuple[int, int]
) -> Bytes:
    """`image` resized to `size` (width, height) on a white ground of `grid` pixels, at `corner`: uint8 [h, w, 3].

    Pillow's bilinear filter, which is what torchvision's `resize` of a Pillow image is: it averages when it shrinks.
    """
    ground = Image.new("RGB", grid, WHITE)
    ground.paste(image.resize(size, Image.Resampling.BILINEAR), corner)
    return np.asarray(ground)


def pixel_values(
    canvases: Sequence[Bytes], side: int, mean: Sequence[float], std: Sequence[float], crops: int
) -> Floats:
    """float32 [n, 1 + crops, 3, side, side]: the thumbnail, then the crops by rows, then zeros.

    A pixel is (byte / 255 - mean) / std in float32, bit for bit what torchvision's ToTensor and Normalize give.
    """
    unit = np.arange(256, dtype=np.float32) / np.float32(255)
    tables = [(unit - np.float32(m)) / np.float32(s) for m, s in zip(mean, std, strict=True)]
    out = np.zeros((len(canvases), 1 + crops, 3, side, side), np.float32)
    for i, pixels in enumerate(canvases):
        rows, columns = pixels.shape[0] // side, pixels.shape[1] // side
        tiles = pixels.reshape(rows, side, columns, side, 3).transpose(0, 2, 4, 1, 3)
        for channel, table in enumerate(tables):
            out[i, 0, channel] = _thumbnail(pixels[..., channel], table, side)
            out[i, 1 : 1 + rows * columns, channel] = table[tiles[:, :, channel].reshape(-1, side, side)]
    return out


def _thumbnail(pixels: Bytes, table: Floats, side: int) -> Floats:
    """float32 [side, side] by bicubic interpolation without antialiasing, as the originals' `interpolate` does.

    The grid is a whole number of crops, so an output pixel lies on an input pixel or half way between two: four
    taps or one a direction, and no more of the image than those is ever made float.
    """
    rows, row_weights = _taps(pixels.shape[0] // side, side)
    columns, column_weights = _taps(pixels.shape[1] // side, side)
    taken = table[pixels[np.ix_(rows.ravel(), columns.ravel())]].reshape(*rows.shape, *columns.shape)
    mixed: Floats = np.einsum("rtc,t->rc", taken @ column_weights, row_weights)
    return mixed


def _taps(crops: int, side: int) -> tuple[NDArray[np.intp], Floats]:
    """Source indices [side, taps] and weights [taps] of one direction; beyond the edge is the edge."""
    middle = np.arange(side)[:, None] * crops + crops // 2
    if crops % 2:
        return middle, np.ones(1, np.float32)
    return np.clip(middle + np.arange(-2, 2), 0, crops * side - 1), _HALF_WAY

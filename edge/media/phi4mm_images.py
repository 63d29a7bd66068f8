"""Images for Phi-4-multimodal, as the `processing_phi4mm.py` that Microsoft ships with the model prepares them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from converters.errors import MediaError
from edge.media.crops import Bytes, canvas, pixel_values
from edge.media.inputs import VisionInputs

CROP_SIZE = 448
MAX_CROPS = 36

_PATCH = 14
# The original refuses what would be thinner than this after resizing.
_MIN_PIXELS = 10


def phi4mm_images(images: Iterable[Image.Image], crop_size: int = CROP_SIZE) -> VisionInputs:
    """At least one RGB image, each cut into at most 36 crops and a thumbnail.

    `crop_size` in pixels, a multiple of 28: 448 in the published model, and `Vision.crop_size` in any. Each image is
    released before the next is asked for, so an iterator over files holds one at a time.
    MediaError: an image so long and thin that fewer than 10 pixels of its short side would be left.
    """
    # `map` lets go of an image before it asks for the next.
    canvases, masks, tokens = zip(*map(partial(_prepare, crop_size=crop_size), images), strict=True)
    crops = max(map(len, masks))
    padded = np.ones((len(masks), 1 + crops, *masks[0].shape[1:]), np.float32)
    for i, mask in enumerate(masks):
        padded[i, 1 : 1 + len(mask)] = mask
    return VisionInputs(
        pixel_values=pixel_values(canvases, crop_size, mean=(0.5,) * 3, std=(0.5,) * 3, crops=crops),
        image_attention_mask=padded,
        image_sizes=np.array([pixels.shape[:2] for pixels in canvases], np.int64),
        tokens=tokens,
    )


def _prepare(image: Image.Image, crop_size: int) -> tuple[Bytes, NDArray[np.float32], int]:
    """Pixels [h, w, 3] of the grid, patch masks [crops, side, side], tokens."""
    columns, rows = crop_grid(*image.size, crop_size)
    grid = columns * crop_size, rows * crop_size
    size = _fit(image.size, *grid)
    side = crop_size // _PATCH
    # A patch that lies wholly in the padding, on the right or below, is 0.
    mask = np.zeros((rows * side, columns * side), np.float32)
    mask[: math.ceil(size[1] / _PATCH), : math.ceil(size[0] / _PATCH)] = 1
    # A token is a square of four patches; a row of them ends with one more, and one parts grid and thumbnail.
    kept = mask[::2, ::2]
    thumbnail = side // 2 * (side // 2 + 1)
    tokens = int(kept.sum()) + int(kept[:, 0].sum()) + 1 + thumbnail
    tiles = mask.reshape(rows, side, columns, side).swapaxes(1, 2).reshape(-1, side, side)
    return canvas(image, size, grid, (0, 0)), tiles, tokens


def crop_grid(width: int, height: int, crop_size: int = CROP_SIZE) -> tuple[int, int]:
    """Columns and rows of crops for an image of so many pixels.

    As many as cover it at its own size; where that is more than 36, the grid whose aspect is nearest. Of equally
    near ones the smallest, or the largest that the image fills by more than half.
    """
    columns, rows = math.ceil(width / crop_size), math.ceil(height / crop_size)
    if columns * rows <= MAX_CROPS:
        return columns, rows
    grids = [(c, r) for c in range(1, MAX_CROPS + 1) for r in range(1, MAX_CROPS // c + 1)]
    nearest, best = math.inf, (1, 1)
    for c, r in sorted(grids, key=math.prod):
        distance = abs(width / height - c / r)
        if distance < nearest or (distance == nearest and width * height > 0.5 * crop_size**2 * c * r):
            nearest, best = distance, (c, r)
    return best


def _fit(size: tuple[int, int], width: int, height: int) -> tuple[int, int]:
    """Width and height of the image scaled to fill `width` or `height`, whichever it meets first."""
    wide, high = width / size[0], height / size[1]
    fitted = (width, int(size[1] * wide)) if wide < high else (int(size[0] * high), height)
    if min(fitted) < _MIN_PIXELS:
        raise MediaError(
            f"an image of {size[0]} x {size[1]} pixels is too long and thin: the model would see "
            f"{fitted[0]} x {fitted[1]}",
            hint="cut it into pieces of a more even shape",
        )
    return fitted

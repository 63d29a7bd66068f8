"""Images for Phi-4-multimodal, as the `processing_phi4mm.py` that Microsoft ships with the model prepares them."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from converters.errors import MediaError
from edge.media.crops import Bytes, canvas, pixel_values
from edge.media.inputs import VisionInputs

SIDE = 448
PATCH = 14
MAX_CROPS = 36
# The original refuses what would be thinner than this after resizing.
_MIN_PIXELS = 10
_MASK = SIDE // PATCH
_THUMBNAIL_TOKENS = 256
_SEPARATORS = 1 + 16


def phi4mm_images(images: Iterable[Image.Image]) -> VisionInputs:
    """At least one RGB image, each cut into at most 36 crops of 448 pixels and a thumbnail.

    Each image is released before the next is asked for, so an iterator over files holds one at a time.
    MediaError: an image so long and thin that fewer than 10 pixels of its short side would be left.
    """
    # `map` lets go of an image before it asks for the next.
    canvases, masks, tokens = zip(*map(_prepare, images), strict=True)
    crops = max(map(len, masks))
    padded = np.ones((len(masks), 1 + crops, _MASK, _MASK), np.float32)
    for i, mask in enumerate(masks):
        padded[i, 1 : 1 + len(mask)] = mask
    return VisionInputs(
        pixel_values=pixel_values(canvases, SIDE, mean=(0.5,) * 3, std=(0.5,) * 3, crops=crops),
        image_attention_mask=padded,
        image_sizes=np.array([pixels.shape[:2] for pixels in canvases], np.int64),
        tokens=tokens,
    )


def _prepare(image: Image.Image) -> tuple[Bytes, NDArray[np.float32], int]:
    """Pixels [h, w, 3] of the grid, patch masks [crops, 32, 32], tokens."""
    columns, rows = crop_grid(*image.size)
    size = _fit(image.size, columns * SIDE, rows * SIDE)
    mask = _patch_mask(size, columns, rows)
    # A token is a square of four patches; each row of them that holds a token ends with one more.
    kept = mask[::2, ::2]
    tokens = _THUMBNAIL_TOKENS + _SEPARATORS + int(kept.sum()) + int(kept[:, 0].sum())
    tiles = mask.reshape(rows, _MASK, columns, _MASK).swapaxes(1, 2).reshape(-1, _MASK, _MASK)
    return canvas(image, size, (columns * SIDE, rows * SIDE), (0, 0)), tiles, tokens


def crop_grid(width: int, height: int) -> tuple[int, int]:
    """Columns and rows of crops for an image of so many pixels.

    As many as cover it at its own size; where that is more than 36, the grid whose aspect is nearest. Of equally
    near ones the smallest, or the largest that the image fills by more than half.
    """
    columns, rows = math.ceil(width / SIDE), math.ceil(height / SIDE)
    if columns * rows <= MAX_CROPS:
        return columns, rows
    grids = [(c, r) for c in range(1, MAX_CROPS + 1) for r in range(1, MAX_CROPS // c + 1)]
    nearest, best = math.inf, (1, 1)
    for c, r in sorted(grids, key=math.prod):
        distance = abs(width / height - c / r)
        if distance < nearest or (distance == nearest and width * height > 0.5 * SIDE * SIDE * c * r):
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


def _patch_mask(size: tuple[int, int], columns: int, rows: int) -> NDArray[np.float32]:
    """float32 [32 rows, 32 columns]: 0 for the patches that lie wholly in the padding on the right and below."""
    mask = np.zeros((rows * _MASK, columns * _MASK), np.float32)
    mask[: math.ceil(size[1] / PATCH), : math.ceil(size[0] / PATCH)] = 1
    return mask

"""Images for Phi-3-vision and Phi-3.5-vision, as the models' own `image_processing_phi3_v.py` prepares them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import partial

import numpy as np
from PIL import Image

from converters.errors import MediaError
from edge.media.crops import Bytes, canvas, pixel_values
from edge.media.inputs import VisionInputs

CROP_SIZE = 336
# CLIP's, of the encoder that the models took over.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)

_PATCH = 14


def phi3v_images(images: Iterable[Image.Image], num_crops: int, crop_size: int = CROP_SIZE) -> VisionInputs:
    """At least one RGB image, each cut into at most `num_crops` crops and a thumbnail.

    `num_crops` is the checkpoint's (`preprocessor_config.json`): 16 for one picture, 4 advised for several. The
    array always has 1 + num_crops crops, zeros where an image has fewer. `crop_size` in pixels, a multiple of 28:
    336 in the published models, and `Vision.crop_size` in any. There is no mask: padding is white.
    MediaError: an image so long and thin that nothing of its short side would be left.
    """
    # `map` lets go of an image before it asks for the next.
    canvases = list(map(partial(_canvas, num_crops=num_crops, crop_size=crop_size), images))
    sizes = np.array([pixels.shape[:2] for pixels in canvases], np.int64)
    return VisionInputs(
        pixel_values=pixel_values(canvases, crop_size, MEAN, STD, num_crops),
        image_attention_mask=None,
        image_sizes=sizes,
        tokens=tuple(_tokens(int(h) // crop_size, int(w) // crop_size, crop_size) for h, w in sizes),
    )


def _tokens(rows: int, columns: int, crop_size: int) -> int:
    """One for each square of four patches, in the grid and in the thumbnail, one after each of their rows of them,
    one between the two."""
    side = crop_size // _PATCH // 2
    return side * rows * (side * columns + 1) + 1 + side * (side + 1)


def _canvas(image: Image.Image, num_crops: int, crop_size: int) -> Bytes:
    """The image as wide as the crops allow, in the middle of a white ground of whole crops: uint8 [h, w, 3].

    An upright image is laid on its side for this and set up again, which is not the same as scaling its height.
    """
    given = image.size
    upright = given[0] < given[1]
    if upright:
        image = image.transpose(Image.Transpose.TRANSPOSE)
    ratio = image.width / image.height
    columns = 1
    while (columns + 1) * math.ceil((columns + 1) / ratio) <= num_crops:
        columns += 1
    width = columns * crop_size
    height = int(width / ratio)
    if not height:
        raise MediaError(
            f"an image of {given[0]} x {given[1]} pixels is too long and thin: at the model's {width} pixels of "
            "length nothing of its width is left",
            hint="cut it into pieces of a more even shape",
        )
    rows = math.ceil(height / crop_size)
    pixels = canvas(image, (width, height), (width, rows * crop_size), (0, (rows * crop_size - height) // 2))
    return pixels.swapaxes(0, 1) if upright else pixels

"""An image file as a person sees it: upright, in RGB, transparency on white."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from converters.errors import MediaError
from edge.media.path_checks import require_file

# Pillow reads more; these have no need of another program (EPS runs Ghostscript) and are what people have.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
# A phone's 108 megapixels and 10,000 x 10,000 fit. Pillow holds 4 bytes a pixel, up to three times while converting.
MAX_PIXELS = 1 << 27
# A decoder may hold the whole file beside the pixels.
MAX_BYTES = 1 << 29
WHITE = (255, 255, 255)

_KINDS = "JPEG, PNG, WebP, GIF, BMP or TIFF"


def read_image(path: Path) -> Image.Image:
    """The first picture of the file, mode RGB. One image of up to MAX_PIXELS is in memory.

    The original code takes what Pillow decodes and calls `convert("RGB")`, which is the same bytes for an opaque
    8-bit image that needs no turning. It is not what a person sees, and here differs, for
    - a photo whose EXIF says how to turn it: turned (transformers' `load_image` does so too);
    - transparency: blended on white, the colour that the models pad with. `convert` shows the colour that lies
      under the transparent pixels, mostly black: a black drawing on a transparent ground becomes a black square;
    - 16-bit gray: the high byte of each pixel, as Pillow does for 16-bit colour. `convert` cuts at 255: all white.
    Colour profiles are ignored, as in the original.

    MediaError: not a file or not one of FORMATS, damaged or cut short, more than MAX_PIXELS or MAX_BYTES (found
    before the pixels are allocated), or without an 8-bit meaning (32-bit integers, floats).
    """
    if require_file(path, "an image") > MAX_BYTES:
        raise MediaError(f"{path} is larger than {MAX_BYTES >> 20} MiB", hint=_smaller())
    try:
        # What a decoder thinks of metadata it skips is nothing a person can act on.
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=FORMATS) as image:
            return _decode(path, image)
    except MediaError:
        raise
    except UnidentifiedImageError:
        raise MediaError(f"{path} is not an image that edge reads", hint=f"save it as {_KINDS}") from None
    except Image.DecompressionBombError:
        raise _too_many_pixels(path) from None
    except Exception as error:  # Hostile files make Pillow's decoders raise whatever they stumble over.
        told = " ".join(str(error).split()) or type(error).__name__
        raise MediaError(
            f"{path} is damaged: {told[:200]}", hint="open it in an image viewer and save it again"
        ) from None


def _decode(path: Path, image: Image.Image) -> Image.Image:
    """RGB from an opened image, whose pixels are not yet read."""
    if image.width * image.height > MAX_PIXELS:
        raise _too_many_pixels(path)
    if image.mode in ("I", "F"):
        raise MediaError(
            f"{path} has 32-bit pixels (mode {image.mode}), and nothing says which value is white",
            hint="save it with 8 or 16 bits a channel",
        )
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.has_transparency_data:
        colours = image.convert("RGBA")
        image = Image.new("RGB", image.size, WHITE)
        image.paste(colours, mask=colours.getchannel("A"))
    return image.convert("RGB")


def _smaller() -> str:
    return (
        f"make it smaller: edge opens up to {MAX_PIXELS / 1e6:.0f} megapixels, and the model sees less than 8"
    )


def _too_many_pixels(path: Path) -> MediaError:
    return MediaError(f"{path} has more than {MAX_PIXELS / 1e6:.0f} megapixels", hint=_smaller())

"""Real files of every kind become what a person sees, and hostile ones one line, in bounded memory."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from converters.errors import MediaError
from edge.media import read_image
from tests.attacks.media import IMAGES

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (30, 40, 3), dtype=np.uint8)


def pixels(path: Path) -> NDArray[np.uint8]:
    image = read_image(path)
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.mark.parametrize("kind", ["png", "bmp", "tiff", "webp", "jpg", "gif"])
def test_an_opaque_image_is_what_pillow_makes_of_it(kind: str, tmp_path: Path) -> None:
    """The original's bytes: Image.open and convert("RGB"). Lossless kinds give back what was saved."""
    file = tmp_path / f"a.{kind}"
    Image.fromarray(COLOURS).save(file, **({"lossless": True} if kind == "webp" else {}))
    assert (pixels(file) == np.asarray(Image.open(file).convert("RGB"))).all()
    if kind not in ("jpg", "gif"):
        assert (pixels(file) == COLOURS).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int, tmp_path: Path) -> None:
    """The tag says how the stored pixels were turned: undoing it by hand gives the upright picture."""
    turned = {
        1: COLOURS,
        2: COLOURS[:, ::-1],
        3: COLOURS[::-1, ::-1],
        4: COLOURS[::-1],
        5: COLOURS.swapaxes(0, 1),
        6: np.rot90(COLOURS),
        7: np.rot90(COLOURS, 2).swapaxes(0, 1),
        8: np.rot90(COLOURS, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name in ("a.png", "a.tiff"):
        Image.fromarray(np.ascontiguousarray(turned)).save(tmp_path / name, exif=exif)
        assert (pixels(tmp_path / name) == COLOURS).all()


def test_transparency_lies_on_white(tmp_path: Path) -> None:
    alpha = RNG.integers(0, 256, (30, 40, 1), dtype=np.uint8)
    file = tmp_path / "a.png"
    Image.fromarray(np.concatenate([COLOURS, alpha], axis=2)).save(file)
    share = alpha / 255
    # One step of 255: Pillow blends in whole numbers.
    assert np.abs(pixels(file) - (COLOURS * share + 255 * (1 - share))).max() <= 1
    opaque = np.concatenate([COLOURS, np.full_like(alpha, 255)], axis=2)
    Image.fromarray(opaque).save(file)
    assert (pixels(file) == COLOURS).all()


def test_black_ink_on_a_transparent_ground_stays_readable(tmp_path: Path) -> None:
    """What the original's convert("RGB") makes of such a drawing: a black square."""
    ink = np.zeros((30, 40, 4), np.uint8)
    ink[10:20, 10:30, 3] = 255
    file = tmp_path / "a.png"
    Image.fromarray(ink).save(file)
    seen = pixels(file)
    assert (seen[10:20, 10:30] == 0).all()
    assert (seen[:10] == 255).all()
    assert not np.asarray(Image.open(file).convert("RGB")).any()


def test_palettes(tmp_path: Path) -> None:
    image = Image.fromarray(COLOURS).quantize(16)
    image.save(tmp_path / "a.png")
    assert (pixels(tmp_path / "a.png") == np.asarray(image.convert("RGB"))).all()
    image.save(tmp_path / "b.png", transparency=3)
    clear = np.asarray(image) == 3
    seen = pixels(tmp_path / "b.png")
    assert clear.any()
    assert (seen[clear] == 255).all()
    assert (seen[~clear] == np.asarray(image.convert("RGB"))[~clear]).all()


def test_gray_of_1_8_and_16_bits_and_with_alpha(tmp_path: Path) -> None:
    gray = COLOURS[..., 0]
    file = tmp_path / "a.png"
    for image, expected in (
        (Image.fromarray(gray), gray),
        (Image.fromarray(gray.astype(np.uint16) * 256 + 77), gray),
        (Image.fromarray(gray > 127), np.where(gray > 127, 255, 0)),
    ):
        image.save(file)
        assert (pixels(file) == expected[..., None]).all()
    Image.merge("LA", [Image.fromarray(gray), Image.fromarray(np.zeros_like(gray))]).save(file)
    assert (pixels(file) == 255).all()
    Image.fromarray(gray.astype(np.uint16) * 256).save(tmp_path / "a.tiff")
    assert (pixels(tmp_path / "a.tiff") == gray[..., None]).all()


def test_cmyk_and_the_first_of_several_pictures(tmp_path: Path) -> None:
    image = Image.fromarray(COLOURS).convert("CMYK")
    image.save(tmp_path / "a.tiff")
    assert (pixels(tmp_path / "a.tiff") == COLOURS).all()
    frames = [Image.fromarray(np.full((9, 9, 3), value, np.uint8)) for value in (10, 200)]
    for name in ("a.gif", "a.png", "a.webp"):
        options = {"lossless": True} if name == "a.webp" else {}
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
        assert (pixels(tmp_path / name) == 10).all()


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.filterwarnings("error")
def test_hostile_files_are_refused(name: str, tmp_path: Path) -> None:
    make, told = IMAGES[name]
    file = tmp_path / "a.png"
    file.write_bytes(make())
    with pytest.raises(MediaError, match=told) as caught:
        read_image(file)
    assert str(file) in caught.value.cause
    assert "\n" not in caught.value.cause


@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "gif", "bmp", "tiff"])
def test_a_damaged_byte_gives_a_picture_or_a_line(kind: str, tmp_path: Path) -> None:
    whole, file = tmp_path / f"a.{kind}", tmp_path / f"b.{kind}"
    Image.fromarray(COLOURS).save(whole)
    data = whole.read_bytes()
    rng = np.random.default_rng(1)
    for _ in range(150):
        changed = bytearray(data)
        # Headers first: half of the damage goes into the first 64 bytes.
        for at in [*rng.integers(0, min(64, len(data)), 1), *rng.integers(0, len(data), 1)]:
            changed[at] = rng.integers(0, 256)
        file.write_bytes(changed[: rng.integers(1, len(data) + 1)] if rng.integers(2) else changed)
        with contextlib.suppress(MediaError):
            assert pixels(file).size


PEAK = """
import sys
from pathlib import Path
from edge.machine import peak_memory
from edge.media import phi4mm_images, read_image
before = peak_memory()
found = phi4mm_images(map(read_image, map(Path, sys.argv[1:])))
print(peak_memory() - before, found.pixel_values.nbytes)
"""


def test_images_of_10_000_pixels_a_side_one_at_a_time(tmp_path: Path) -> None:
    """100 megapixels: 4 bytes each while they are RGB and one as they were gray, and never two images."""
    ramp = np.arange(10_000) // 40
    file = tmp_path / "a.png"
    Image.fromarray(np.broadcast_to(ramp.astype(np.uint8), (10_000, 10_000))).save(file, compress_level=1)
    taken = []
    for count in (1, 3):
        done = subprocess.run(
            [sys.executable, "-c", PEAK, *[str(file)] * count], capture_output=True, check=True
        )
        used, result = map(int, done.stdout.split())
        taken.append(used - result)
    assert taken[0] < 650e6
    # A grid of 36 crops is 22 MB as bytes; a third image would be 400 more.
    assert taken[1] < taken[0] + 100e6

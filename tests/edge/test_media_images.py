"""The arrays of an image against the original formulas, written anew here with torch and Pillow."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional

from converters.errors import MediaError
from edge.media import phi3v_images, phi4mm_images
from edge.media.phi4mm_images import MAX_CROPS, crop_grid

# The thumbnail's four products are summed in another order than torch's: two roundings of values up to 2 (CLIP: 3).
ROUNDING = 1e-6

SIZES = [
    (1, 1),
    (447, 448),
    (448, 448),
    (449, 448),
    (448, 449),
    (897, 450),  # An odd number of crops across, an even one down: both kinds of taps.
    (640, 480),
    (333, 777),
    (2689, 2688),  # 7 x 6 crops would cover it: the aspect decides.
    (10_000, 310),
    (230, 10_000),
]


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(width * 7 + height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def normalised(image: Image.Image, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div(255)
    return (tensor - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


def views(full: torch.Tensor, side: int) -> torch.Tensor:
    """The thumbnail and the crops by rows of a normalised [3, h, w]: [1 + crops, 3, side, side]."""
    thumbnail = functional.interpolate(full[None], size=(side, side), mode="bicubic")
    crops = full.unfold(1, side, side).unfold(2, side, side).permute(1, 2, 0, 3, 4).reshape(-1, 3, side, side)
    return torch.cat([thumbnail, crops])


def assert_views(found: np.ndarray, full: torch.Tensor, side: int) -> None:
    expected = views(full, side).numpy()
    filled = len(expected)
    assert (found[1:filled] == expected[1:]).all()
    assert np.abs(found[0] - expected[0]).max() < ROUNDING
    assert not found[filled:].any()


def phi4mm_grid(width: int, height: int, side: int = 448) -> tuple[int, int]:
    covering = -(-width // side), -(-height // side)
    if math.prod(covering) <= 36:
        return covering
    grids = np.array([(c, r) for c in range(1, 37) for r in range(1, 37) if c * r <= 36])
    distances = np.abs(width / height - grids[:, 0] / grids[:, 1])
    nearest = sorted(map(tuple, grids[distances == distances.min()].tolist()), key=math.prod)
    filled = [g for g in nearest[1:] if width * height > side * side * math.prod(g) / 2]
    return (filled or nearest)[-1 if filled else 0]


def phi4mm_oracle(image: Image.Image, side: int = 448) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalised pixels [3, h, w] and the mask of patches [h / 14, w / 14]."""
    columns, rows = phi4mm_grid(*image.size, side)
    width, height = side * columns, side * rows
    across, down = width / image.width, height / image.height
    size = (width, int(image.height * across)) if across < down else (int(image.width * down), height)
    small = image.resize(size, Image.Resampling.BILINEAR)
    full = functional.pad(
        normalised(small, [0.5] * 3, [0.5] * 3), (0, width - size[0], 0, height - size[1]), value=1.0
    )
    covered = torch.zeros(1, height, width)
    covered[:, : size[1], : size[0]] = 1
    # A patch counts when any of its pixels is the image's.
    return full, functional.max_pool2d(covered, 14)[0]


def phi4mm_tokens(mask: torch.Tensor, side: int = 448) -> int:
    """Tokens of the thumbnail (16 rows of 16 and a line end each), a separator, and the grid row by row."""
    count = side // 28 * (side // 28 + 1) + 1
    for row in mask[::2]:
        tokens = int(row[::2].sum())
        count += tokens + (1 if row[0] else 0)
    return count


@pytest.mark.parametrize("size", SIZES)
def test_phi4mm_equals_the_original(size: tuple[int, int]) -> None:
    image = noise(*size)
    found = phi4mm_images([image])
    full, mask = phi4mm_oracle(image)
    assert_views(found.pixel_values[0], full, 448)
    assert found.image_sizes.tolist() == [list(full.shape[1:])]
    assert found.tokens == (phi4mm_tokens(mask),)
    assert found.image_attention_mask is not None
    tiles = mask.unfold(0, 32, 32).unfold(1, 32, 32).reshape(-1, 32, 32).numpy()
    assert (found.image_attention_mask[0, 1:] == tiles).all()
    assert (found.image_attention_mask[0, 0] == 1).all()
    assert found.pixel_values.dtype == found.image_attention_mask.dtype == np.float32
    assert found.image_sizes.dtype == np.int64


def test_phi4mm_pads_a_batch_with_black_crops_and_open_masks() -> None:
    images = [noise(500, 300), noise(100, 100), noise(1000, 1000)]
    found = phi4mm_images(iter(images))
    assert found.pixel_values.shape == (3, 1 + 9, 3, 448, 448)
    for i, image in enumerate(images):
        alone = phi4mm_images([image])
        crops = alone.pixel_values.shape[1]
        assert (found.pixel_values[i, :crops] == alone.pixel_values[0]).all()
        assert (found.pixel_values[i, crops:] == 0).all()
        assert found.image_attention_mask is not None
        assert alone.image_attention_mask is not None
        assert (found.image_attention_mask[i, :crops] == alone.image_attention_mask[0]).all()
        assert (found.image_attention_mask[i, crops:] == 1).all()
        assert found.tokens[i] == alone.tokens[0]


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 12_000), st.integers(1, 12_000))
def test_phi4mm_grid_of_any_size(width: int, height: int) -> None:
    grid = crop_grid(width, height)
    assert grid == phi4mm_grid(width, height)
    assert math.prod(grid) <= MAX_CROPS


@pytest.mark.parametrize("ties", [(3000, 3000), (9000, 4500), (1500, 6000)])
def test_phi4mm_grid_of_equally_near_ones(ties: tuple[int, int]) -> None:
    """1 x 1, 2 x 2, ... 6 x 6 are of one aspect: the largest that the image fills by more than half."""
    assert crop_grid(*ties) == phi4mm_grid(*ties)


def phi3v_oracle(image: Image.Image, num_crops: int, side: int = 336) -> torch.Tensor:
    """Normalised pixels [3, h, w] with white above and below (left and right of an upright image)."""
    upright = image.width < image.height
    if upright:
        return phi3v_oracle(image.transpose(Image.Transpose.TRANSPOSE), num_crops, side).transpose(1, 2)
    ratio = image.width / image.height
    columns = max(c for c in range(1, num_crops + 1) if c * math.ceil(c / ratio) <= num_crops)
    width, height = side * columns, int(side * columns / ratio)
    small = image.resize((width, height), Image.Resampling.BILINEAR)
    missing = -height % side
    ground = Image.fromarray(np.full((height + missing, width, 3), 255, np.uint8))
    ground.paste(small, (0, int(missing / 2)))
    return normalised(ground, (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


@pytest.mark.parametrize("num_crops", [1, 4, 16])
@pytest.mark.parametrize(
    "size", [(1, 1), (336, 336), (337, 335), (335, 337), (1000, 700), (700, 1000), (10_000, 640)]
)
def test_phi3v_equals_the_original(size: tuple[int, int], num_crops: int) -> None:
    image = noise(*size)
    found = phi3v_images([image], num_crops)
    full = phi3v_oracle(image, num_crops)
    rows, columns = full.shape[1] // 336, full.shape[2] // 336
    assert found.pixel_values.shape == (1, 1 + num_crops, 3, 336, 336)
    assert_views(found.pixel_values[0], full, 336)
    assert found.image_sizes.tolist() == [list(full.shape[1:])]
    assert found.image_attention_mask is None
    # 12 rows of 12 and a line end each, once a crop row as one picture, and the same for the thumbnail.
    assert found.tokens == (12 * rows * (12 * columns) + rows * 12 + 1 + 12 * 12 + 12,)


def test_phi3v_of_several_images_is_each_alone() -> None:
    images = [noise(300, 200), noise(64, 300)]
    found = phi3v_images(iter(images), 4)
    for i, image in enumerate(images):
        alone = phi3v_images([image], 4)
        assert (found.pixel_values[i] == alone.pixel_values[0]).all()
        assert (found.image_sizes[i] == alone.image_sizes[0]).all()
        assert found.tokens[i] == alone.tokens[0]


def test_crops_of_another_size() -> None:
    """Those of a tiny model: 112 pixels, 8 x 8 patches."""
    image = noise(700, 500)
    found = phi4mm_images([image], 112)
    full, mask = phi4mm_oracle(image, 112)
    assert_views(found.pixel_values[0], full, 112)
    assert found.tokens == (phi4mm_tokens(mask, 112),)
    assert found.image_attention_mask is not None
    tiles = mask.unfold(0, 8, 8).unfold(1, 8, 8).reshape(-1, 8, 8).numpy()
    assert (found.image_attention_mask[0, 1:] == tiles).all()
    other = phi3v_images([image], 16, 112)
    full = phi3v_oracle(image, 16, 112)
    assert_views(other.pixel_values[0], full, 112)
    rows, columns = full.shape[1] // 112, full.shape[2] // 112
    assert other.tokens == (4 * rows * (4 * columns + 1) + 1 + 4 * 5,)


def test_too_long_and_thin_is_refused_at_the_originals_limit() -> None:
    """36 crops of 448 pixels are 16,128 wide; below 10 pixels of height the original raises."""
    phi4mm_images([noise(1613, 10)])
    with pytest.raises(MediaError, match="2240 x 9"):
        phi4mm_images([noise(1793, 8)])
    with pytest.raises(MediaError, match="1 x 4481 pixels is too long"):
        phi3v_images([noise(1, 4481)], 4)

"""The independent float32 evaluator of a Vision encoder: what `vision.onnx` is compared with.

A layer's weights are read once and go over all crops; one weight is in memory at a time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.checkpoint import Checkpoint
from converters.encoder_forward import attend, layer_norm, mlp
from converters.encoders import Vision
from converters.forward import Floats
from converters.reference import Streamed, Transform


def image_features(
    checkpoint: Checkpoint,
    vision: Vision,
    pixels: Floats,
    sizes: NDArray[np.int64],
    mask: NDArray[np.bool_] | None = None,
    *,
    transform: Transform | None = None,
) -> Floats:
    """Features of images, one after the other: float32 [all features, output_size].

    pixels: float32 [images, crops, 3, crop size, crop size], the thumbnail first, then the crops in reading order,
    then any number that are not looked at. sizes: height and width in pixels that the crops cover, [images, 2].
    mask: of patches [images, crops, side, side], for an encoder with `patch_mask`. `transform` as in
    `converters.reference.logits`.
    """
    if vision.patch_mask != (mask is not None):
        raise ValueError("a mask of patches goes with an encoder that has one, and with no other")
    weights = Streamed(checkpoint, transform)
    grids = [(int(height) // vision.crop_size, int(width) // vision.crop_size) for height, width in sizes]
    used = [(i, crop) for i, (rows, columns) in enumerate(grids) for crop in range(1 + rows * columns)]
    crops = np.stack([pixels[place] for place in used]).astype(np.float32)
    seen = None if mask is None else np.stack([mask[place] for place in used])
    merged = _merge(vision, _encode(weights, vision, crops, seen))
    row_end, separator = (weights.whole(w).reshape(1, 1, -1) for w in (vision.row_end, vision.separator))
    parts: list[Floats] = []
    first = 0
    for rows, columns in grids:
        thumbnail, tiles = merged[first], merged[first + 1 : first + 1 + rows * columns]
        grid = _assembled(tiles, rows, columns)
        if seen is not None:
            useful = _assembled(seen[first + 1 : first + 1 + rows * columns, ::2, ::2], rows, columns)
            grid = grid[: useful[:, 0].sum(), : useful[0].sum()]
        parts += [_ended(grid, row_end), separator[0], _ended(thumbnail, row_end)]
        first += 1 + rows * columns
    return mlp(weights, vision.projection, np.concatenate(parts), "gelu")


def _encode(weights: Streamed, vision: Vision, crops: Floats, seen: NDArray[np.bool_] | None) -> Floats:
    """Hidden states of the patches before the last layer, [crops, side * side, hidden]."""
    count, side, patch = len(crops), vision.side, vision.patch_size
    patches = crops.reshape(count, 3, side, patch, side, patch).transpose(0, 2, 4, 1, 3, 5)
    kernel = weights.whole(vision.patch).reshape(vision.hidden_size, -1)
    hidden = patches.reshape(count, side * side, -1) @ kernel.T
    if vision.patch_bias is not None:
        hidden += weights.whole(vision.patch_bias)
    if vision.class_token is not None:
        token = np.broadcast_to(weights.whole(vision.class_token), (count, 1, vision.hidden_size))
        hidden = np.concatenate([token, hidden], axis=1)
    table = weights.whole(vision.position)
    hidden += table if seen is None else table[_positions(seen)]
    if vision.first_norm is not None:
        hidden = layer_norm(weights, vision.first_norm, hidden, vision.norm_eps)
    visible = None if seen is None else seen.reshape(count, -1)
    for layer in vision.layers:
        normed = layer_norm(weights, layer.attention.norm, hidden, vision.norm_eps)
        hidden += attend(weights, layer.attention, normed, vision.heads, visible=visible)
        normed = layer_norm(weights, layer.mlp_norm, hidden, vision.norm_eps)
        hidden += mlp(weights, layer.mlp, normed, vision.activation)
    return hidden if vision.class_token is None else hidden[:, 1:]


def _positions(seen: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Row of the position table for each patch, [crops, side * side]: the part of the way through the rows and columns
    that hold no padding, on the table's own grid; 0 for padding (NaViT's fractional positions, arXiv 2307.06304)."""
    side = seen.shape[1]
    boundaries = np.arange(1, side, dtype=np.float32) / np.float32(side)
    coordinates = []
    for useful in (seen[:, :, 0].sum(axis=1), seen[:, 0].sum(axis=1)):
        step = np.float32(1) / np.maximum(useful, 1).astype(np.float32)
        part = np.arange(side, dtype=np.float32) * step[:, None]
        part = np.minimum(part, np.float32(1 - 1e-6))
        coordinates.append(np.searchsorted(boundaries, part, side="right"))
    rows, columns = coordinates
    ids = rows[:, :, None] * side + columns[:, None, :]
    return np.where(seen, ids, 0).reshape(len(seen), -1)


def _merge(vision: Vision, hidden: Floats) -> Floats:
    """2 x 2 patches to a feature: [crops, side / 2, side / 2, feature size]."""
    half = vision.side // 2
    blocks = hidden.reshape(len(hidden), half, 2, half, 2, vision.hidden_size)
    if vision.merge == "average":
        average: Floats = blocks.mean(axis=(2, 4), dtype=np.float32)
        return average
    return blocks.transpose(0, 1, 3, 2, 4, 5).reshape(len(hidden), half, half, -1)


def _assembled(tiles: NDArray[Any], rows: int, columns: int) -> NDArray[Any]:
    """Tiles [rows * columns, n, n, ...] side by side: [rows * n, columns * n, ...]."""
    n = tiles.shape[1]
    grid = tiles.reshape(rows, columns, n, n, *tiles.shape[3:])
    return np.swapaxes(grid, 1, 2).reshape(rows * n, columns * n, *tiles.shape[3:])


def _ended(grid: Floats, row_end: Floats) -> Floats:
    """Rows one after the other, each with its end: [rows * (columns + 1), channels]."""
    ends = np.broadcast_to(row_end, (len(grid), 1, grid.shape[2]))
    return np.concatenate([grid, ends], axis=1).reshape(-1, grid.shape[2])

"""The vision encoder of Phi-3-vision and Phi-3.5-vision: CLIP ViT-L/14 at 336 pixels (arXiv 2103.00020)."""

from __future__ import annotations

import math

from converters.encoder_tensors import layer_norm, projection
from converters.encoders import Vision
from converters.tensor_map import TensorMap
from converters.vision_tensors import (
    check_grid,
    separators,
    sizes_of,
    tower_layers,
)

HEADS = 16
NORM_EPS = 1e-5


def read_clip(tensors: TensorMap, prefix: str, output_size: int) -> Vision:
    """The encoder below `prefix`; its sizes stand in no config, only its tensors and the original code. Errors as
    `read_siglip`."""
    tower = f"{prefix}.img_processor.vision_model"
    sizes = sizes_of(tensors, tower)
    crop_size, hidden = math.isqrt(max(sizes.positions - 1, 0)) * sizes.patch, sizes.hidden
    check_grid(crop_size, sizes.patch, sizes.positions - 1, HEADS, hidden)
    embeddings = f"{tower}.embeddings"
    row_end, separator = separators(tensors, f"{prefix}.sub_GN", f"{prefix}.glb_GN", 4 * hidden)
    # A constant 0..positions-1 that older releases of transformers saved.
    tensors.without_effect(f"{embeddings}.position_ids")
    return Vision(
        crop_size=crop_size,
        patch_size=sizes.patch,
        hidden_size=hidden,
        output_size=output_size,
        heads=HEADS,
        norm_eps=NORM_EPS,
        activation="quick_gelu",
        merge="stack",
        patch_mask=False,
        token_id=None,
        patch=tensors.whole(
            "vision.patch", f"{embeddings}.patch_embedding.weight", hidden, 3, sizes.patch, sizes.patch
        ),
        patch_bias=None,
        class_token=tensors.whole("vision.class_token", f"{embeddings}.class_embedding", hidden),
        position=tensors.whole(
            "vision.position", f"{embeddings}.position_embedding.weight", sizes.positions, hidden
        ),
        first_norm=layer_norm(tensors, "vision.first_norm", f"{tower}.pre_layrnorm", hidden),
        layers=tower_layers(tensors, tower, sizes),
        row_end=row_end,
        separator=separator,
        projection=projection(
            tensors,
            "vision.projection",
            (f"{prefix}.img_projection.0", f"{prefix}.img_projection.2"),
            4 * hidden,
            output_size,
        ),
    )

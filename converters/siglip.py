"""The vision encoder of Phi-4-multimodal: SigLIP with a mask of patches (arXiv 2303.15343, NaViT 2307.06304)."""

from __future__ import annotations

from dataclasses import dataclass

from converters.encoder_tensors import projection
from converters.encoders import Vision
from converters.tensor_map import TensorMap
from converters.vision_tensors import TowerSizes, check_grid, separators, tower_layers

NORM_EPS = 1e-6


@dataclass(frozen=True)
class Names:
    """Of the tensors that the two layouts of the checkpoint call differently."""

    row_end: str
    separator: str
    projection: tuple[str, str]


def read_siglip(
    tensors: TensorMap,
    prefix: str,
    names: Names,
    sizes: TowerSizes,
    *,
    crop_size: int,
    heads: int,
    output_size: int,
    token_id: int,
) -> Vision:
    """The encoder below `prefix`. CheckpointError for a tensor that is missing or does not fit; UnsupportedError for
    sizes that do not fit each other."""
    check_grid(crop_size, sizes.patch, sizes.positions, heads, sizes.hidden)
    tower, hidden = f"{prefix}.img_processor", sizes.hidden
    embeddings = f"{tower}.embeddings"
    row_end, separator = separators(
        tensors, f"{prefix}.{names.row_end}", f"{prefix}.{names.separator}", hidden
    )
    up, down = names.projection
    return Vision(
        crop_size=crop_size,
        patch_size=sizes.patch,
        hidden_size=hidden,
        output_size=output_size,
        heads=heads,
        norm_eps=NORM_EPS,
        activation="gelu_tanh",
        merge="average",
        patch_mask=True,
        token_id=token_id,
        patch=tensors.whole(
            "vision.patch", f"{embeddings}.patch_embedding.weight", hidden, 3, sizes.patch, sizes.patch
        ),
        patch_bias=tensors.whole("vision.patch.bias", f"{embeddings}.patch_embedding.bias", hidden),
        class_token=None,
        position=tensors.whole(
            "vision.position", f"{embeddings}.position_embedding.weight", sizes.positions, hidden
        ),
        first_norm=None,
        layers=tower_layers(tensors, tower, sizes),
        row_end=row_end,
        separator=separator,
        projection=projection(
            tensors, "vision.projection", (f"{prefix}.{up}", f"{prefix}.{down}"), hidden, output_size
        ),
    )

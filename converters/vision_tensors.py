"""Vision encoders from the tensors of a checkpoint: what SigLIP and CLIP towers share, in transformers' names."""

from __future__ import annotations

import math
from dataclasses import dataclass

from converters.decoder import Weight
from converters.encoder_tensors import layer_norm, linear
from converters.encoders import Linear, Mlp, SelfAttention, VisionLayer
from converters.errors import UnsupportedError
from converters.tensor_map import TensorMap
from quant.blocks import BLOCK


@dataclass(frozen=True)
class TowerSizes:
    """`positions`: of the position table, a class token's included. `layers`: of which the last one is not computed
    with, for features come from the states before it."""

    hidden: int
    inner: int
    layers: int
    patch: int
    positions: int


def sizes_of(tensors: TensorMap, tower: str) -> TowerSizes:
    """Of a tower that no config describes, by its tensors. CheckpointError when one is missing."""
    hidden, _, patch, _ = tensors.shape(f"{tower}.embeddings.patch_embedding.weight", 4)
    positions, _ = tensors.shape(f"{tower}.embeddings.position_embedding.weight", 2)
    inner, _ = tensors.shape(f"{tower}.encoder.layers.0.mlp.fc1.weight", 2)
    layers = 1
    while tensors.has(f"{tower}.encoder.layers.{layers}.mlp.fc1.weight"):
        layers += 1
    return TowerSizes(hidden, inner, layers, patch, positions)


def tower_layers(tensors: TensorMap, tower: str, sizes: TowerSizes) -> tuple[VisionLayer, ...]:
    """All but the last layer, which with all behind it has no effect on the states before it."""
    used = sizes.layers - 1
    for part in (f"encoder.layers.{used}", "post_layernorm", "head"):
        tensors.without_effect(f"{tower}.{part}.")
    return tuple(
        _layer(tensors, f"{tower}.encoder.layers.{i}", f"vision.layers.{i}", sizes) for i in range(used)
    )


def check_grid(crop: int, patch: int, patches: int, heads: int, hidden: int) -> None:
    """UnsupportedError unless the crops, the patches and the position table fit each other and 2 x 2 merging."""
    side = math.isqrt(max(patches, 0))
    whole = min(crop, patch, hidden) > 0 and side * patch == crop and side * side == patches
    if not whole or side % 2 or hidden % heads:
        raise UnsupportedError(
            f"vision encoder: crops of {crop} pixels, patches of {patch}, {patches} positions, {hidden} channels in "
            f"{heads} heads (only whole patches, an even number in a row, one position each, equal heads)",
            hint="compare config.json with the one that the model was published with",
        )


def separators(tensors: TensorMap, row_end: str, separator: str, size: int) -> tuple[Weight, Weight]:
    """What ends a row of features, and what stands between the crops and the thumbnail."""
    return (
        tensors.whole("vision.row_end", row_end, 1, 1, 1, size),
        tensors.whole("vision.separator", separator, 1, 1, size),
    )


def _layer(tensors: TensorMap, source: str, name: str, sizes: TowerSizes) -> VisionLayer:
    hidden, inner = sizes.hidden, sizes.inner
    attention, mlp = f"{name}.attention", f"{name}.mlp"

    def projected(part: str, tensor: str) -> Linear:
        return linear(tensors, f"{attention}.{part}", f"{source}.self_attn.{tensor}", hidden, hidden)

    return VisionLayer(
        attention=SelfAttention(
            norm=layer_norm(tensors, f"{attention}.norm", f"{source}.layer_norm1", hidden),
            q=projected("q", "q_proj"),
            k=projected("k", "k_proj"),
            v=projected("v", "v_proj"),
            o=projected("o", "out_proj"),
        ),
        mlp_norm=layer_norm(tensors, f"{mlp}.norm", f"{source}.layer_norm2", hidden),
        mlp=Mlp(
            linear(tensors, f"{mlp}.up", f"{source}.mlp.fc1", inner, hidden),
            # SigLIP is 4304 wide inside, no multiple of a block.
            Linear(
                tensors.padded(f"{mlp}.down", f"{source}.mlp.fc2.weight", hidden, inner, BLOCK),
                tensors.whole(f"{mlp}.down.bias", f"{source}.mlp.fc2.bias", hidden),
            ),
        ),
    )

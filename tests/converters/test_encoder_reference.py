"""The numpy encoders against transformers' classes in float32, on tiny random weights.

Both sum in float32 in different orders: at values of about 3 they differ by some 1e-6, so 2e-5 leaves room for another
BLAS. A wrong position, merge order or mask is off by more than 1e-2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from transformers import Phi4MultimodalVisionConfig
from transformers.models.phi4_multimodal.modeling_phi4_multimodal import Phi4MultimodalVisionEmbeddings

from converters.checkpoint import Checkpoint
from converters.models import describe_whole
from converters.multimodal import Multimodal
from converters.onnx.vision_graph import _buckets
from converters.speech_reference import speech_features
from converters.vision_reference import _positions, image_features
from tests.converters.encoder_support import GRIDS, Grids, Native, clip_features, random_clips, random_images

CLOSE = 2e-5
TinyMultimodal = Callable[..., Path]


@pytest.fixture(scope="module")
def native(tiny_multimodal: TinyMultimodal) -> Native:
    return Native(tiny_multimodal("phi4_multimodal"))


@pytest.fixture(params=["phi4mm", "phi4_multimodal"])
def opened(request: pytest.FixtureRequest, tiny_multimodal: TinyMultimodal) -> Iterator[Checkpoint]:
    """Both layouts, which hold the same values."""
    with Checkpoint.open(tiny_multimodal(request.param)) as checkpoint:
        yield checkpoint


def whole(checkpoint: Checkpoint) -> Multimodal:
    model = describe_whole(checkpoint)
    assert isinstance(model, Multimodal)
    return model


@pytest.mark.parametrize("grids", GRIDS.values(), ids=GRIDS)
def test_siglip_equals_transformers(opened: Checkpoint, native: Native, grids: Grids) -> None:
    vision = whole(opened).vision
    assert vision is not None
    images = random_images(vision, grids)
    ours = image_features(opened, vision, *images)
    assert np.abs(ours - native.image_features(images, len(ours))).max() < CLOSE


@pytest.mark.parametrize("side", [8, 24, 32])
def test_positions_within_padding_are_those_of_transformers(side: int) -> None:
    """Every number of seen rows and columns, the reference's and the graph's table: fractions that fall upon a boundary
    of the grid must round as float32 does there."""
    config = Phi4MultimodalVisionConfig(image_size=side, patch_size=1, crop_size=side, hidden_size=1)
    embeddings = Phi4MultimodalVisionEmbeddings(config)
    with torch.no_grad():
        embeddings.patch_embedding.weight.zero_()
        embeddings.patch_embedding.bias.zero_()
        embeddings.position_embedding.weight[:, 0] = torch.arange(side * side)
    seen = np.zeros((side, side, side), np.bool_)
    for n in range(side):
        seen[n, : n + 1, : side - n] = True
    with torch.inference_mode():
        theirs = embeddings(torch.zeros(side, 3, side, side), torch.from_numpy(seen))[..., 0].numpy()
    assert np.array_equal(_positions(seen), theirs)
    table = _buckets(side)
    rows, columns = table[seen[:, :, 0].sum(axis=1)], table[seen[:, 0].sum(axis=1)]
    ids = np.where(seen, rows[:, :, None] * side + columns[:, None], 0).reshape(side, -1)
    assert np.array_equal(ids, theirs)


@pytest.mark.parametrize("grids", GRIDS.values(), ids=GRIDS)
def test_clip_equals_transformers(tiny_multimodal: TinyMultimodal, grids: Grids) -> None:
    with Checkpoint.open(tiny_multimodal("phi3_v")) as checkpoint:
        vision = whole(checkpoint).vision
        assert vision is not None
        images = random_images(vision, [(rows, columns, 0, 0) for rows, columns, *_ in grids])
        ours = image_features(checkpoint, vision, *images)
        theirs = clip_features(
            vision, images, lambda name: checkpoint.read(f"model.vision_embed_tokens.{name}")
        )
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() < CLOSE


# 4009 frames are 502 positions: a second stretch of two.
@pytest.mark.parametrize("projection", ["speech", "vision"])
@pytest.mark.parametrize("lengths", [[1], [97], [300, 213], [4009], [4321, 4009, 9]])
def test_conformer_equals_transformers_with_the_originals_mask(
    opened: Checkpoint, native: Native, lengths: list[int], projection: Literal["speech", "vision"]
) -> None:
    speech = whole(opened).speech
    assert speech is not None
    frames, sizes, mask = random_clips(speech, lengths)
    ours = speech_features(opened, speech, frames, sizes, mask, projection=projection)
    theirs = native.speech_features(frames, sizes, mask, projection)
    assert np.abs(ours - theirs).max() < CLOSE


def test_a_clip_alone_has_no_mask(tiny_multimodal: TinyMultimodal, native: Native) -> None:
    """The original then attends to the zeros after the last stretch, which changes what it says there."""
    with Checkpoint.open(tiny_multimodal("phi4mm")) as checkpoint:
        speech = whole(checkpoint).speech
        assert speech is not None
        frames, sizes, mask = random_clips(speech, [4100])
        alone = speech_features(checkpoint, speech, frames, sizes)
        masked = speech_features(checkpoint, speech, frames, sizes, mask)
    assert np.abs(alone - native.speech_features(frames, sizes, None, "speech")).max() < CLOSE
    assert np.abs(alone[:500] - masked[:500]).max() < CLOSE
    assert np.abs(alone[500:] - masked[500:]).max() > 1e-2

"""What is counted from a file is what the encoder makes of it: one feature for each place in the prompt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from converters.checkpoint import Checkpoint
from converters.models import describe_whole
from converters.multimodal import Multimodal
from converters.speech_reference import speech_features
from converters.vision_reference import image_features
from edge.media import Audio, phi3v_images, phi4mm_audio, phi4mm_images

# Padding below, on the right, in both and nowhere; one crop and many.
SIZES = [(112, 112), (300, 113), (90, 400), (257, 131), (1, 1)]
TinyMultimodal = Callable[..., Path]


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("name", ["phi4mm", "phi3_v"])
def test_a_feature_for_every_token_of_an_image(name: str, tiny_multimodal: TinyMultimodal) -> None:
    with Checkpoint.open(tiny_multimodal(name)) as checkpoint:
        model = describe_whole(checkpoint)
        assert isinstance(model, Multimodal)
        vision = model.vision
        assert vision is not None

        def tokens_and_features(*sizes: tuple[int, int]) -> tuple[int, int]:
            images = (noise(*size) for size in sizes)
            if vision.patch_mask:
                found = phi4mm_images(images, vision.crop_size)
            else:
                found = phi3v_images(images, 4, vision.crop_size)
            mask = found.image_attention_mask
            seen = None if mask is None else mask != 0
            features = image_features(checkpoint, vision, found.pixel_values, found.image_sizes, seen)
            return sum(found.tokens), len(features)

        alone = [tokens_and_features(size) for size in SIZES]
        assert [tokens for tokens, _ in alone] == [features for _, features in alone]
        together = tokens_and_features(*SIZES)
        assert together == tuple(map(sum, zip(*alone, strict=True)))


@pytest.mark.parametrize("lengths", [(400,), (1520, 1680), (16_000, 8_123, 400)])
def test_a_feature_for_every_token_of_a_clip(
    lengths: tuple[int, ...], tiny_multimodal: TinyMultimodal
) -> None:
    rng = np.random.default_rng(0)
    clips = [Audio(rng.normal(size=n).astype(np.float32) / 10, 16000) for n in lengths]
    with Checkpoint.open(tiny_multimodal("phi4mm")) as checkpoint:
        model = describe_whole(checkpoint)
        assert isinstance(model, Multimodal)
        assert model.speech is not None
        found = phi4mm_audio(clips)
        mask = found.audio_attention_mask
        assert found.tokens == tuple(model.speech.positions(int(n)) for n in mask.sum(axis=1))
        features = speech_features(
            checkpoint, model.speech, found.audio_embeds, found.audio_sizes, mask, projection="speech"
        )
        assert len(features) == sum(found.tokens)
        assert np.isfinite(features).all()

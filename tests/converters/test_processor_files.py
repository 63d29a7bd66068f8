"""onnxruntime-genai reads the processor files and prepares, nearly, what `edge.media` does. How nearly is held here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime_genai as og
import pytest
import soundfile
from numpy.typing import NDArray
from PIL import Image

from converters.onnx.processor_files import phi3v_vision, phi4mm_speech, phi4mm_vision
from edge.media import phi3v_images, phi4mm_audio, phi4mm_images, read_audio, read_image
from tests.converters.genai_folder import SPECIAL, arrays, open_processor

PHI4MM = {"vision_processor.json": phi4mm_vision(), "speech_processor.json": phi4mm_speech()}
PHI3V = {"processor_config.json": phi3v_vision()}


@pytest.fixture(scope="module")
def phi4mm(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return open_processor(tmp_path_factory.mktemp("phi4mm"), "phi4mm", PHI4MM)


def picture(path: Path, width: int, height: int) -> Path:
    """Soft waves and one sharp edge: as smooth as a photo, so that an interpolation's kind shows and noise does not."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / 23 + y / 31), np.cos(x / 47), np.where(x > y, 1, -1)]
    Image.fromarray((128 + 100 * np.stack(waves, -1)).astype(np.uint8)).save(path)
    return path


def voice(path: Path, rate: int, seconds: float) -> Path:
    """A gliding tone with noise, so that no mel bin is empty."""
    t = np.arange(int(rate * seconds)) / rate
    tone = 0.3 * np.sin(2 * np.pi * (200 + 80 * np.sin(5 * t)) * t)
    soundfile.write(path, tone + 0.05 * np.random.default_rng(0).normal(size=len(t)), rate)
    return path


def distance(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    assert a.shape == b.shape
    return np.abs(a - b)


def test_phi4mm_images_are_the_same_but_for_the_thumbnail(phi4mm: Any, tmp_path: Path) -> None:
    """Ours is without antialiasing, as the original's; genai's is with it. A thumbnail of one crop is that crop."""
    files = [picture(tmp_path / "a.png", 1000, 700), picture(tmp_path / "b.png", 300, 400)]
    images = og.Images.open(*map(str, files))
    theirs = arrays(phi4mm("<|image_1|><|image_2|>", images=images))
    ours = phi4mm_images(map(read_image, files))
    # One float32 rounding of values up to 1.
    assert distance(theirs["pixel_values"][:, 1:], ours.pixel_values[:, 1:]).max() < 2e-7
    thumbnails = distance(theirs["pixel_values"][:, 0], ours.pixel_values[:, 0])
    assert thumbnails[1].max() < 2e-7
    assert 0.3 < thumbnails[0].max() < 1
    assert thumbnails[0].mean() < 0.02
    assert (theirs["image_attention_mask"] == ours.image_attention_mask).all()
    assert (theirs["image_sizes"] == ours.image_sizes).all()
    assert tuple(theirs["num_image_tokens"].ravel()) == ours.tokens
    assert (theirs["input_ids"] == SPECIAL["<|endoftext10|>"]).sum() == sum(ours.tokens)


def test_phi3v_images_are_the_same_but_for_the_thumbnail(tmp_path: Path) -> None:
    ask = open_processor(tmp_path, "phi3v", PHI3V)
    for width, height in ((1000, 700), (300, 500)):
        file = picture(tmp_path / "a.png", width, height)
        theirs = arrays(ask("<|image_1|>", images=og.Images.open(str(file))))
        ours = phi3v_images([read_image(file)], num_crops=16)
        crops = distance(theirs["pixel_values"][:, 1:], ours.pixel_values[:, 1:])
        # An upright image they scale upright: other roundings of the two passes, one of 255 steps at most.
        assert crops.max() < (1e-6 if width > height else 1.1 / 255 / 0.26)
        assert distance(theirs["pixel_values"][:, 0], ours.pixel_values[:, 0]).mean() < 0.03
        assert (theirs["image_sizes"] == ours.image_sizes).all()
        assert tuple(theirs["num_image_tokens"].ravel()) == ours.tokens


@pytest.mark.parametrize(
    ("rate", "seconds", "mean", "largest"),
    [
        # Their transform is less exact: 0.002 on average, up to 0.06 in a bin that is nearly empty.
        (16000, 3, 0.005, 0.1),
        # They also leave out the last bin of 31 Hz below 4 kHz: the two filters that count it are lower by up to 2.3.
        (8000, 3, 0.02, 3),
        # Another low-pass (Butterworth, which delays) before another interpolation.
        (44100, 3, 0.2, 6),
        # Longer than the 30 s that genai cuts at when it is not told otherwise.
        (16000, 45, 0.005, 0.3),
    ],
)
def test_phi4mm_audio_is_nearly_the_same(
    phi4mm: Any, tmp_path: Path, rate: int, seconds: float, mean: float, largest: float
) -> None:
    file = voice(tmp_path / "a.wav", rate, seconds)
    theirs = arrays(phi4mm("<|audio_1|>", audios=og.Audios.open(str(file))))
    ours = phi4mm_audio([read_audio(file)])
    assert tuple(theirs["audio_sizes"]) == ours.tokens
    assert (theirs["audio_attention_mask"] == ours.audio_attention_mask).all()
    difference = distance(theirs["audio_embeds"], ours.audio_embeds)
    assert difference.mean() < mean
    assert difference.max() < largest


def test_clips_of_two_lengths_are_padded_the_same_way(phi4mm: Any, tmp_path: Path) -> None:
    files = [voice(tmp_path / "a.wav", 16000, 3), voice(tmp_path / "b.flac", 16000, 1.7)]
    theirs = arrays(phi4mm("<|audio_1|><|audio_2|>", audios=og.Audios.open(*map(str, files))))
    ours = phi4mm_audio(map(read_audio, files))
    assert (theirs["audio_attention_mask"] == ours.audio_attention_mask).all()
    assert distance(theirs["audio_embeds"], ours.audio_embeds).mean() < 0.005
    assert (theirs["input_ids"] == SPECIAL["<|endoftext11|>"]).sum() == sum(ours.tokens)

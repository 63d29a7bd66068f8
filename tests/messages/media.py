"""Pictures and recordings that a person names."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

from edge.media import phi3v_images, phi4mm_images, read_audio, read_image
from tests.attacks.media import AUDIO, IMAGES
from tests.messages import World, add, case


@case
def no_file(world: World) -> None:
    world.call(read_image, world.path / "nowhere.png")
    world.call(read_audio, world.path / "nowhere.wav")
    world.call(read_image, world.path)
    world.call(read_audio, Path(os.devnull))
    (world.path / "empty.wav").touch()
    world.call(read_audio, world.path / "empty.wav")


def _hostile(read: Callable[[Path], object], name: str, make: Callable[[], bytes]) -> Callable[[World], None]:
    def tell(world: World) -> None:
        (world.path / name).write_bytes(make())
        world.call(read, world.path / name)

    return tell


for kind in ("text", "half a png", "png of 144 megapixels", "png of 3.6 gigapixels"):
    add(f"media/image-{kind}", _hostile(read_image, "picture.png", IMAGES[kind][0]))
for kind in (
    "text",
    "half a wav",
    "half a flac",
    "half an mp3",
    "wav of 2 GHz",
    "wav of 6 kHz",
    "not a number",
):
    add(f"media/audio-{kind}", _hostile(read_audio, "voice.wav", AUDIO[kind][0]))


@case
def image_file_of_half_a_gigabyte(world: World) -> None:
    with (world.path / "picture.png").open("wb") as file:
        file.truncate((1 << 29) + 1)
    world.call(read_image, world.path / "picture.png")


@case
def image_of_32_bits(world: World) -> None:
    Image.fromarray(np.zeros((9, 9), np.float32)).save(world.path / "picture.tiff")
    world.call(read_image, world.path / "picture.tiff")


@case
def image_long_and_thin(world: World) -> None:
    line = Image.new("RGB", (9000, 5))
    world.call(phi4mm_images, [line])
    world.call(phi3v_images, [line.resize((9000, 1))], 4)


@case
def audio_of_raw_samples(world: World) -> None:
    (world.path / "voice.raw").write_bytes(bytes(64000))
    world.call(read_audio, world.path / "voice.raw")


@case
def audio_too_short_and_too_long(world: World) -> None:
    soundfile.write(world.path / "click.wav", np.zeros(80), 16000)
    world.call(read_audio, world.path / "click.wav")
    silence = io.BytesIO()
    soundfile.write(silence, np.zeros(8000 * 1801, np.int16), 8000, format="FLAC")
    (world.path / "silence.flac").write_bytes(silence.getvalue())
    world.call(read_audio, world.path / "silence.flac")

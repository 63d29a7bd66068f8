"""A picture and a recording that proofs are run on: made here, the same on every machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np

SIZE = (600, 400)
SECONDS, RATE = 3, 16000


def write_picture(file: Path) -> None:
    """A PNG of SIZE (width, height): a wide picture, so that it becomes several crops, with edges and slopes."""
    from PIL import Image

    width, height = SIZE
    y, x = np.mgrid[:height, :width]
    slope = np.stack([x * 255 // width, y * 255 // height, (x + y) * 255 // (width + height)], axis=-1)
    disc = (x - width // 3) ** 2 + (y - height // 2) ** 2 < (height // 4) ** 2
    slope[disc] = (220, 30, 60)
    slope[(x // 40 + y // 40) % 2 == 0] //= 2
    Image.fromarray(slope.astype(np.uint8)).save(file)


def write_recording(file: Path) -> None:
    """A WAV of SECONDS: a tone that rises from 200 to 2000 Hz, and falls silent four times a second."""
    import soundfile

    t = np.arange(SECONDS * RATE) / RATE
    phase = 2 * np.pi * (200 * t + 900 * t**2 / SECONDS)
    loud = 0.5 + 0.5 * np.sin(2 * np.pi * 4 * t)
    soundfile.write(file, (0.3 * loud * np.sin(phase)).astype(np.float32), RATE, subtype="PCM_16")

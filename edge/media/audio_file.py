"""A recording on disk as one channel at one of the two rates that the model knows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from converters.errors import MediaError
from edge.media.chunks import missing_bytes
from edge.media.path_checks import require_file
from edge.media.resample import resample

RATES = (8000, 16000)
MAX_RATE = 192_000
# What the model's card calls the longest useful recording; 115 MB at 16 kHz.
MAX_SECONDS = 30 * 60
# Shorter than one frame there is nothing to hear.
MIN_SECONDS = 0.025

_BLOCK = 1 << 16
# A float file should stay within -1..1; one in units of 16-bit samples still has a meaning.
_MAX_LEVEL = 1 << 16
_SAVE = "save it again, for example as a 16-bit WAV"


@dataclass(frozen=True)
class Audio:
    """samples: float32 [n], one channel, full scale -1 to 1. rate: 8000 or 16000 samples a second."""

    samples: NDArray[np.float32]
    rate: int


def read_audio(path: Path) -> Audio:
    """What libsndfile reads (WAV, FLAC, OGG, MP3, AIFF, ...), its channels averaged. One block is in memory beside
    the result.

    16 and 8 kHz stay as they are; above 16 kHz becomes 16, between 8 and 16 becomes 8, as the original intends. It
    divides the rate by a whole number only and calls the result 16 (8) kHz: a voice at 44.1, 22.05 or 11.025 kHz
    reaches the model 1.38 times too slow and deep. Here the ratio is the true one (160/441); for 32, 48 and 96 kHz,
    where the original is right, the samples are the original's.

    MediaError: not a file or not audio, cut short, shorter than 25 ms or longer than 30 minutes, a rate outside
    8 to 192 kHz, or samples that are no numbers.
    """
    require_file(path, "a recording")
    if missing := missing_bytes(path):
        raise _cut_short(path, f"{missing:,} bytes of its sound are missing")
    try:
        with soundfile.SoundFile(path) as file:
            _require_bounds(path, file.samplerate, file.frames)
            target = max(rate for rate in RATES if rate <= file.samplerate)
            blocks = _mono_blocks(path, file)
            if target != file.samplerate:
                blocks = resample(blocks, file.samplerate, target)
            samples = np.concatenate(
                [np.zeros(0, np.float32), *(block.astype(np.float32) for block in blocks)]
            )
    except TypeError:  # What soundfile raises for a name in .raw.
        raise MediaError(f"{path} is a file of raw samples: nothing says at what rate", hint=_SAVE) from None
    except soundfile.SoundFileError as error:
        told = " ".join(str(getattr(error, "error_string", error)).removeprefix("Error : ").split())
        raise MediaError(f"{path} cannot be read as audio: {told[:200]}", hint=_SAVE) from None
    if len(samples) < MIN_SECONDS * target:
        raise MediaError(
            f"{path} lasts {1000 * len(samples) / target:.1f} ms: the model hears in frames of 25 ms",
            hint="record at least a word",
        )
    return Audio(samples, target)


def _require_bounds(path: Path, rate: int, frames: int) -> None:
    if not RATES[0] <= rate <= MAX_RATE:
        raise MediaError(
            f"{path} has {rate} samples a second: speech needs {RATES[0]}, and {MAX_RATE} is the most",
            hint="save it at 16000 samples a second",
        )
    if frames > MAX_SECONDS * rate:
        raise MediaError(
            f"{path} is longer than {MAX_SECONDS // 60} minutes",
            hint="cut it into parts and give them one by one",
        )


def _mono_blocks(path: Path, file: soundfile.SoundFile) -> Iterator[NDArray[np.float64]]:
    """The mean of the channels, float64 as libsndfile scales it to -1..1, `_BLOCK` values of the file at a time."""
    left = file.frames
    while left:
        block = file.read(max(1, _BLOCK // file.channels), dtype="float64", always_2d=True)
        if not len(block):
            raise _cut_short(path, f"{left:,} of {file.frames:,} samples are missing")
        left -= len(block)
        mono: NDArray[np.float64] = block.mean(axis=1)
        if not (np.abs(mono) <= _MAX_LEVEL).all():
            raise MediaError(f"{path} holds samples that are no sound (NaN or beyond any scale)", hint=_SAVE)
        yield mono


def _cut_short(path: Path, missing: str) -> MediaError:
    return MediaError(
        f"{path} is cut short: {missing}", hint="copy it again, or save what plays as a new file"
    )

"""Real recordings of every kind become one channel at 16 or 8 kHz, and hostile ones one line, in bounded memory."""

from __future__ import annotations

import contextlib
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from converters.errors import MediaError
from edge.media import phi4mm_audio, read_audio
from edge.media.audio_file import MAX_SECONDS
from edge.media.resample import resample
from tests.attacks.media import AUDIO

SOUND: NDArray[np.float64] = np.random.default_rng(0).uniform(-0.5, 0.5, 4001)


@pytest.mark.parametrize("rate", [8000, 16000])
@pytest.mark.parametrize(
    ("name", "subtype", "step"),
    [
        ("a.wav", "PCM_U8", 2**-7),
        ("a.wav", "PCM_16", 2**-15),
        ("a.wav", "PCM_24", 2**-23),
        ("a.wav", "PCM_32", 2**-24),  # More than float32 holds.
        ("a.wav", "FLOAT", 2**-25),
        ("a.wav", "DOUBLE", 2**-25),
        ("a.flac", "PCM_16", 2**-15),
        ("a.flac", "PCM_24", 2**-23),
        ("a.aiff", "PCM_16", 2**-15),
    ],
)
def test_samples_are_kept_to_the_formats_last_bit(
    name: str, subtype: str, step: float, rate: int, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / name, SOUND, rate, subtype=subtype)
    found = read_audio(tmp_path / name)
    assert found.rate == rate
    assert found.samples.dtype == np.float32
    assert found.samples.shape == SOUND.shape
    assert np.abs(found.samples - SOUND).max() <= step
    # What libsndfile gives the original, rounded to the float32 that its frames are.
    whole, _ = soundfile.read(tmp_path / name)
    assert (found.samples == whole.astype(np.float32)).all()


@pytest.mark.parametrize("name", ["a.ogg", "a.mp3"])
def test_lossy_kinds_are_what_libsndfile_makes_of_them(name: str, tmp_path: Path) -> None:
    soundfile.write(tmp_path / name, np.sin(np.arange(16000) / 9) / 2, 16000)
    found = read_audio(tmp_path / name)
    whole, _ = soundfile.read(tmp_path / name)
    assert np.abs(found.samples - whole).max() < 1e-6


@pytest.mark.parametrize("channels", [2, 6])
def test_channels_are_averaged(channels: int, tmp_path: Path) -> None:
    sound = np.random.default_rng(1).integers(-20_000, 20_000, (3000, channels))
    soundfile.write(tmp_path / "a.wav", sound.astype(np.int16), 16000)
    assert (read_audio(tmp_path / "a.wav").samples == (sound / 32768).mean(axis=1).astype(np.float32)).all()


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (44100, 16000),
        (48000, 16000),
        (22050, 16000),
        (16001, 16000),
        (15999, 8000),
        (12000, 8000),
        (11025, 8000),
    ],
)
def test_other_rates_become_16_or_8_khz_and_last_as_long(source: int, target: int, tmp_path: Path) -> None:
    sound = np.random.default_rng(2).integers(-20_000, 20_000, (source, 2)).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", sound, source)
    found = read_audio(tmp_path / "a.wav")
    assert found.rate == target
    assert len(found.samples) == target
    whole = np.concatenate(list(resample([(sound / 32768).mean(axis=1)], source, target)))
    assert np.abs(found.samples - whole).max() < 1e-6
    assert phi4mm_audio([found]).audio_embeds.shape == (1, 98, 80)


def test_44_khz_and_16_khz_give_the_same_features(tmp_path: Path) -> None:
    """One vowel-like sound (harmonics of 150 Hz up to 5 kHz) written at both rates."""
    features = []
    for rate in (16000, 44100):
        t = np.arange(rate) / rate
        sound = sum(np.sin(2 * np.pi * 150 * h * t) / h for h in range(1, 34)) / 5
        soundfile.write(tmp_path / "a.wav", sound, rate, subtype="FLOAT")
        features.append(phi4mm_audio([read_audio(tmp_path / "a.wav")]).audio_embeds[0, 5:-5, :60])
    # Below 5 kHz the low-pass is flat to 1e-3; bins between the harmonics hold little, and move more.
    assert np.abs(features[0] - features[1]).mean() < 0.02


def test_the_shortest_recordings(tmp_path: Path) -> None:
    file = tmp_path / "a.wav"
    soundfile.write(file, SOUND[:400], 16000)
    assert phi4mm_audio([read_audio(file)]).tokens == (1,)
    for samples in (0, 1, 399):
        soundfile.write(file, SOUND[:samples], 16000)
        with pytest.raises(MediaError, match=f"lasts {samples / 16:.1f} ms"):
            read_audio(file)
    soundfile.write(file, SOUND[:200], 8000)
    assert phi4mm_audio([read_audio(file)]).tokens == (1,)


def test_a_length_that_the_writer_did_not_know(tmp_path: Path) -> None:
    """A WAV from a pipe says 4 GiB, with extra chunks before the sound: read to the end of the file."""
    file = tmp_path / "a.wav"
    soundfile.write(file, SOUND, 16000)
    data = file.read_bytes()
    at = data.index(b"data")
    note = b"note" + struct.pack("<I", 5) + b"hello\0"
    file.write_bytes(data[:at] + note + b"data" + struct.pack("<I", 0xFFFFFFFF) + data[at + 8 :])
    assert len(read_audio(file).samples) == len(SOUND)
    file.write_bytes(data[:at] + note + data[at:-100])
    with pytest.raises(MediaError, match="cut short: 100 bytes"):
        read_audio(file)


@pytest.mark.parametrize("name", AUDIO)
def test_hostile_files_are_refused(name: str, tmp_path: Path) -> None:
    make, told = AUDIO[name]
    file = tmp_path / "a.wav"
    file.write_bytes(make())
    with pytest.raises(MediaError, match=told) as caught:
        read_audio(file)
    assert str(file) in caught.value.cause
    assert "\n" not in caught.value.cause


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.aiff"])
def test_a_damaged_byte_gives_a_sound_or_a_line(name: str, tmp_path: Path) -> None:
    whole, file = tmp_path / name, tmp_path / f"b{name}"
    soundfile.write(whole, SOUND, 16000)
    data = whole.read_bytes()
    rng = np.random.default_rng(1)
    for _ in range(150):
        changed = bytearray(data)
        # Headers first: half of the damage goes into the first 64 bytes.
        for at in [*rng.integers(0, 64, 1), *rng.integers(0, len(data), 1)]:
            changed[at] = rng.integers(0, 256)
        file.write_bytes(changed[: rng.integers(1, len(data) + 1)] if rng.integers(2) else changed)
        with contextlib.suppress(MediaError):
            assert np.isfinite(read_audio(file).samples).all()


PEAK = """
import sys
from pathlib import Path
from edge.machine import peak_memory
from edge.media import read_audio
before = peak_memory()
found = read_audio(Path(sys.argv[1]))
print(peak_memory() - before, found.samples.nbytes)
"""


def test_memory_is_the_result_and_a_block(tmp_path: Path) -> None:
    """Three minutes of stereo at 44.1 kHz: 64 MB as they are read, 11.5 MB as the model takes them."""
    seconds = 180
    block = np.random.default_rng(3).integers(-9999, 9999, (44100, 2)).astype(np.int16)
    with soundfile.SoundFile(tmp_path / "a.wav", "w", 44100, 2) as file:
        for _ in range(seconds):
            file.write(block)
    command = [sys.executable, "-c", PEAK, str(tmp_path / "a.wav")]
    used, result = map(int, subprocess.run(command, capture_output=True, check=True).stdout.split())
    assert result == seconds * 16000 * 4
    # The blocks, joined once; and a block on its way through the filter.
    assert used < 2 * result + 40e6


def test_half_an_hour_is_the_most(tmp_path: Path) -> None:
    for seconds in (MAX_SECONDS, MAX_SECONDS + 1):
        # Silence: 30 KB of FLAC make 14 million samples.
        with soundfile.SoundFile(tmp_path / f"{seconds}.flac", "w", 8000, 1, "PCM_16") as file:
            for _ in range(seconds):
                file.write(np.zeros(8000, np.int16))
    assert len(read_audio(tmp_path / f"{MAX_SECONDS}.flac").samples) == MAX_SECONDS * 8000
    with pytest.raises(MediaError, match="longer than 30 minutes"):
        read_audio(tmp_path / f"{MAX_SECONDS + 1}.flac")

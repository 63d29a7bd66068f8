"""Log-mel frames and resampling against the original formulas, written anew: a DFT by its matrix, a plain filter."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers.audio_utils import mel_filter_bank
from transformers.models.phi4_multimodal.feature_extraction_phi4_multimodal import (
    Phi4MultimodalFeatureExtractor,
)

from edge.media import Audio, phi4mm_audio
from edge.media.log_mel import log_mel
from edge.media.resample import resample

# Powers of up to 1e12 in float32: relative 1e-6 through the sum of a filter, and the logarithm makes that absolute.
ROUNDING = 1e-5


def sound(samples: int, seed: int = 0) -> NDArray[np.float32]:
    """A loud and a soft half, and silence at the end: the cut at 1 takes part."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=samples) * np.where(np.arange(samples) < samples / 2, 0.2, 1e-5)
    x[samples * 9 // 10 :] = 0
    return x.astype(np.float32)


def oracle(samples: NDArray[np.float32], rate: int) -> NDArray[np.float64]:
    """Frame by frame, and the Fourier sum as a matrix product in float64.

    Pre-emphasis is in float32 by definition: it cancels, and in float64 nearly empty bins come out 4e-4 away.
    """
    window, hop, fft = (400, 160, 512) if rate == 16000 else (200, 80, 256)
    x = torch.from_numpy(samples)
    frames = torch.stack([x[i : i + window] for i in range(0, len(x) - window + 1, hop)])
    emphasised = frames.clone()
    emphasised[:, 1:] -= 0.97 * frames[:, :-1]
    emphasised[:, 0] -= 0.97 * frames[:, 0]
    weighted = (32768 * emphasised).double() * torch.hamming_window(
        window, periodic=False, dtype=torch.float64
    )
    turns = torch.outer(torch.arange(window), torch.arange(fft // 2 + 1)).double() / fft
    power = (weighted @ torch.cos(2 * math.pi * turns)) ** 2 + (
        weighted @ torch.sin(2 * math.pi * turns)
    ) ** 2
    spectrum = torch.zeros(len(frames), 257, dtype=torch.float64)
    kept = 257 if rate == 16000 else 128
    spectrum[:, :kept] = power[:, :kept]
    # transformers' filters are the original's but for the last bin below 7690 Hz, which the original leaves out.
    bank = mel_filter_bank(257, 80, 0, 7690, 16000, mel_scale="kaldi", triangularize_in_mel_space=True)
    bank[246] = 0
    return (spectrum @ torch.from_numpy(bank)).clamp(min=1).log().numpy()


@pytest.mark.parametrize("rate", [16000, 8000])
@pytest.mark.parametrize("frames", [1, 2, 300, 1025])
def test_log_mel_equals_the_original(rate: int, frames: int) -> None:
    """To 1,025 frames: one more than go through the transform at a time."""
    window, hop = rate // 40, rate // 100
    samples = sound(window + hop * (frames - 1) + hop - 1)
    found = log_mel(samples, rate)
    assert found.shape == (frames, 80)
    assert found.dtype == np.float32
    assert np.abs(found - oracle(samples, rate)).max() < ROUNDING


def test_silence_is_zero_and_8_khz_has_nothing_above_4_khz() -> None:
    assert not log_mel(np.zeros(1600, np.float32), 16000).any()
    narrow, wide = log_mel(sound(8000), 8000), log_mel(sound(16000), 16000)
    # The filter whose triangle begins above bin 127 (3969 Hz) of 512.
    centres = 700 * (np.exp(np.linspace(0, 1127 * np.log(1 + 7690 / 700), 82) / 1127) - 1)
    above = centres[:-2] > 127 * 16000 / 512
    assert 10 < above.sum() < 30
    assert not narrow[:, above].any()
    assert narrow[:40, ~above].all()
    assert wide[:40, above].all()


@pytest.mark.parametrize(
    ("samples", "frames", "tokens"),
    [(400, 1, 1), (559, 1, 1), (560, 2, 1), (1520, 8, 1), (1679, 8, 1), (1680, 9, 2), (16000, 98, 13)],
)
def test_frames_and_tokens_at_every_edge(samples: int, frames: int, tokens: int) -> None:
    found = phi4mm_audio([Audio(sound(samples), 16000)])
    assert found.audio_embeds.shape == (1, frames, 80)
    assert found.tokens == (tokens,) == (math.ceil(frames / 8),)
    assert found.audio_sizes.tolist() == [tokens]
    assert found.audio_sizes.dtype == np.int64


def test_longer_than_the_encoders_window_of_40_s() -> None:
    found = phi4mm_audio([Audio(sound(16000 * 41), 16000)])
    assert found.audio_embeds.shape == (1, 4098, 80)
    assert found.tokens == (513,)


def test_a_batch_is_each_clip_alone_then_zeros() -> None:
    clips = [Audio(sound(20_011, 1), 16000), Audio(sound(48_000, 2), 16000), Audio(sound(9_000, 3), 8000)]
    found = phi4mm_audio(iter(clips))
    for i, clip in enumerate(clips):
        alone = log_mel(clip.samples, clip.rate)
        assert (found.audio_embeds[i, : len(alone)] == alone).all()
        assert not found.audio_embeds[i, len(alone) :].any()
        assert found.audio_attention_mask[i].tolist() == [t < len(alone) for t in range(298)]
        assert found.tokens[i] == math.ceil(len(alone) / 8)


def test_where_transformers_differs_from_the_original() -> None:
    """The last filter has one bin more, and frames that reach into the padding of a shorter clip are not zero."""
    extract = Phi4MultimodalFeatureExtractor()
    clips = [sound(48_000, 4), np.random.default_rng(5).normal(size=20_011).astype(np.float32)]
    theirs = extract(clips, sampling_rate=16000, return_tensors="np")
    ours = phi4mm_audio([Audio(clip, 16000) for clip in clips])
    difference = np.abs(theirs["audio_input_features"] - ours.audio_embeds)
    assert (theirs["audio_attention_mask"] == ours.audio_attention_mask).all()
    assert theirs["audio_embed_sizes"].tolist() == list(ours.tokens)
    assert difference[ours.audio_attention_mask][:, :79].max() < ROUNDING
    assert 1e-3 < difference[ours.audio_attention_mask][:, 79].max() < 0.05
    assert np.flatnonzero(difference[1, :, :79].max(axis=1) > 1).tolist() == [124, 125]
    assert ours.audio_attention_mask[1].sum() == 123


def filtered(x: NDArray[np.float64], up: int, down: int) -> NDArray[np.float64]:
    """Zeros between the samples, one long convolution with the whole low-pass, every `down`-th of what comes out."""
    half = 10 * max(up, down)
    window = torch.kaiser_window(2 * half + 1, periodic=False, beta=5.0, dtype=torch.float64).numpy()
    low_pass = window * np.sinc(np.arange(-half, half + 1) / max(up, down))
    stuffed = np.zeros(len(x) * up)
    stuffed[::up] = x
    smooth = np.convolve(stuffed, up * low_pass / low_pass.sum())[half : half + len(stuffed)]
    return smooth[::down]


@pytest.mark.parametrize(
    ("source", "target", "up", "down"),
    [(32000, 16000, 1, 2), (48000, 16000, 1, 3), (44100, 16000, 160, 441), (11025, 8000, 320, 441)],
)
@pytest.mark.parametrize("samples", [1, 60, 1999])
def test_resampling_is_one_filter_however_the_sound_is_cut(
    source: int, target: int, up: int, down: int, samples: int
) -> None:
    x = np.random.default_rng(samples).normal(size=samples)
    expected = filtered(x, up, down)
    assert len(expected) == math.ceil(samples * up / down)
    for cuts in ([], [samples // 2], [samples // 7, samples // 7, samples // 3], list(range(samples))):
        found = np.concatenate(list(resample(np.split(x, cuts), source, target)))
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() < 1e-12


def test_resampling_nothing_gives_nothing() -> None:
    assert sum(map(len, resample([], 44100, 16000))) == 0
    assert sum(map(len, resample([np.zeros(0)], 44100, 16000))) == 0


@pytest.mark.parametrize("source", [22050, 44100, 48000, 96000, 192_000, 44101])
def test_pitch_and_loudness_stay(source: int) -> None:
    """1 kHz at half of full scale, one second; the original's 44.1 kHz comes out as 726 Hz and 1.38 s."""
    tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(source) / source)
    found = np.concatenate(list(resample([tone], source, 16000)))
    assert len(found) == 16000
    expected = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000)
    # The pass band of the filter is flat to 1e-3.
    assert np.abs(found - expected)[100:-100].max() < 1e-3
    hiss = np.sin(2 * np.pi * 10_500 * np.arange(source) / source)
    # Above 8 kHz nothing may fold down; the filter's stop band is at -50 dB there.
    assert np.abs(np.concatenate(list(resample([hiss], source, 16000))))[100:-100].max() < 5e-3

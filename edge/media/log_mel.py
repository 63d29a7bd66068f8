"""Speech as log-mel frames, as the feature extractor of Phi-4-multimodal computes them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

BINS = 80

_MODEL_RATE = 16000
_FFT = 512
_TOP_HZ = 7690
_PRE_EMPHASIS = 0.97
# Frames at a time: a block takes about 10 MB on the way through the transform.
_BLOCK = 1024

Floats = NDArray[np.float32]


def log_mel(samples: Floats, rate: int) -> Floats:
    """float32 [frames, 80] from float32 [n] at 16000 or 8000 Hz: 25 ms windows, 10 ms apart, none cut or padded.

    Each window by itself is pre-emphasised (its first sample against itself), scaled to 16 bits, weighted by a
    symmetric Hamming window and transformed; the power in 80 triangles on the mel scale is cut at 1 from below and
    its natural logarithm taken. At 8 kHz everything is half as long and the upper half of the spectrum is zero,
    with the 4 kHz bin that would be its first. Precision as in the original: float32, the transform in float64.
    """
    return np.concatenate([np.zeros((0, BINS), np.float32), *_blocks(samples, rate)])


def _blocks(samples: Floats, rate: int) -> Iterator[Floats]:
    shrink = _MODEL_RATE // rate
    window, hop, fft = 400 // shrink, 160 // shrink, _FFT // shrink
    if len(samples) < window:
        return
    frames = sliding_window_view(samples, window)[::hop]
    used = fft // 2 + (shrink == 1)
    bank = _mel_bank()[:used]
    for first in range(0, len(frames), _BLOCK):
        block = frames[first : first + _BLOCK]
        before = np.concatenate([block[:, :1], block[:, :-1]], axis=1)
        emphasised = (block - np.float32(_PRE_EMPHASIS) * before) * np.float32(32768)
        spectrum = np.fft.rfft(np.hamming(window) * emphasised, fft)[:, :used].astype(np.complex64)
        yield np.log(np.maximum(np.abs(spectrum) ** 2 @ bank, 1))


@cache
def _mel_bank() -> Floats:
    """float32 [257, 80]: triangles evenly spaced on the mel scale between 0 and 7690 Hz, linear on that scale.

    The first and the last bin that lie in this range (0 and 7687.5 Hz) take no part. transformers' own feature
    extractor counts the last one; the original does not.
    """
    bins = np.arange(_FFT // 2 + 1)
    mels = _mel(bins * _MODEL_RATE / _FFT)
    centres, step = np.linspace(_mel(0.0), _mel(_TOP_HZ), BINS + 2, retstep=True)
    bank = np.maximum(0, 1 - np.abs(mels[:, None] - centres[None, 1:-1]) / step)
    outside = (bins < 1) | (bins >= round(_TOP_HZ * _FFT / _MODEL_RATE))
    bank[outside] = 0
    return bank.astype(np.float32)


def _mel(hertz: float | NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1127.0 * np.log1p(np.asarray(hertz) / 700.0))

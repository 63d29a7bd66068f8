"""Recordings for Phi-4-multimodal, as the `processing_phi4mm.py` that Microsoft ships with the model prepares them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from edge.media.audio_file import Audio
from edge.media.inputs import SpeechInputs
from edge.media.log_mel import BINS, log_mel

# The encoder's convolutions make one position of so many frames.
FRAMES_PER_TOKEN = 8


def phi4mm_audio(clips: Iterable[Audio]) -> SpeechInputs:
    """At least one clip. Features are padded, not samples: a frame that the padding reaches into does not exist.

    transformers' own extractor pads the samples, and leaves in a shorter clip's padding one or two frames that begin
    in its last 20 ms: the encoder's convolutions see them. The original pads features, as here.
    """
    features = [log_mel(clip.samples, clip.rate) for clip in clips]
    frames = np.array([len(f) for f in features], np.int64)
    embeds = np.zeros((len(features), frames.max(), BINS), np.float32)
    for row, feature in zip(embeds, features, strict=True):
        row[: len(feature)] = feature
    tokens = -(-frames // FRAMES_PER_TOKEN)
    return SpeechInputs(
        audio_embeds=embeds,
        audio_attention_mask=np.arange(frames.max()) < frames[:, None],
        audio_sizes=tokens,
        tokens=tuple(tokens.tolist()),
    )

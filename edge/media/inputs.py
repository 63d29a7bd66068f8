"""What the encoders take, under the names that onnxruntime-genai gives their inputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class VisionInputs:
    """n images as crops. Crop 0 of each is the whole image as a thumbnail; absent crops are zeros.

    pixel_values: float32 [n, crops, 3, side, side], normalised.
    image_attention_mask: float32 [n, crops, side / 14, side / 14], 1 where a patch holds the image and 0 where it
        lies in the padding; ones for absent crops, as in the original. None for a model that has no such input.
    image_sizes: int64 [n, 2], height and width in pixels of the grid of crops.
    tokens: how many positions each image takes in the prompt.
    """

    pixel_values: NDArray[np.float32]
    image_attention_mask: NDArray[np.float32] | None
    image_sizes: NDArray[np.int64]
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class SpeechInputs:
    """n clips as log-mel frames, one every 10 ms; a shorter clip is followed by zeros.

    audio_embeds: float32 [n, frames, 80].
    audio_attention_mask: bool [n, frames], True on the frames that a clip has.
    audio_sizes: int64 [n], the same as `tokens`.
    tokens: how many positions each clip takes in the prompt.
    """

    audio_embeds: NDArray[np.float32]
    audio_attention_mask: NDArray[np.bool_]
    audio_sizes: NDArray[np.int64]
    tokens: tuple[int, ...]

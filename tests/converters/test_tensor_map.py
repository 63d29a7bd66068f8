"""Handles that are not a tensor as it stands: kernels of one point, columns of zeros, rows of a stack."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from converters.checkpoint import Checkpoint
from converters.errors import CheckpointError, UnsupportedError
from converters.tensor_map import TensorMap

BLOCK = "model.embed_tokens_extend.audio_embed.encoder.encoders.0"
POINT = f"{BLOCK}.conv.ext_pw_conv_1d.weight"
NARROW = "model.embed_tokens_extend.image_embed.img_processor.encoder.layers.0.mlp.fc2.weight"


@pytest.fixture
def checkpoint(tiny_multimodal: Callable[..., Path]) -> Iterator[Checkpoint]:
    with Checkpoint.open(tiny_multimodal("phi4mm")) as opened:
        yield opened


def test_a_kernel_of_one_point_is_a_matrix(checkpoint: Checkpoint) -> None:
    weight = TensorMap(checkpoint).point("w", POINT, 64, 64)
    assert weight.is_matrix
    rows = checkpoint.weight_rows(weight, 10, 20)
    assert rows.shape == (10, 64)
    assert np.array_equal(rows, checkpoint.read(POINT, 10, 20)[..., 0])


@pytest.mark.parametrize(("start", "stop"), [(0, 64), (5, 6), (63, 64), (7, 7)])
def test_columns_of_zeros_follow_the_tensors(checkpoint: Checkpoint, start: int, stop: int) -> None:
    weight = TensorMap(checkpoint).padded("w", NARROW, 64, 80, 32)
    assert weight.shape == (64, 96)
    rows = checkpoint.weight_rows(weight, start, stop)
    assert rows.dtype == checkpoint.read(NARROW, 0, 1).dtype
    assert np.array_equal(rows[:, :80], checkpoint.read(NARROW, start, stop))
    assert not rows[:, 80:].any()


def test_a_multiple_needs_no_zeros(checkpoint: Checkpoint) -> None:
    assert TensorMap(checkpoint).padded("w", NARROW, 64, 80, 16).zero_columns == 0


def test_a_tensor_of_another_width_is_refused(checkpoint: Checkpoint) -> None:
    """The zeros do not stand for columns that are missing, nor the dropped axes for others."""
    tensors = TensorMap(checkpoint)
    with pytest.raises(CheckpointError, match="fc2"):
        tensors.padded("w", NARROW, 64, 79, 32)
    weight = tensors.padded("w", NARROW, 64, 80, 32)
    for wrong in (
        replace(weight, zero_columns=8),
        replace(weight, shape=(64, 80)),
        replace(weight, shape=(64, 128)),
    ):
        with pytest.raises(CheckpointError, match="takes its rows"):
            checkpoint.weight_rows(wrong, 0, 4)


def test_only_what_is_below_a_prefix_has_no_effect(checkpoint: Checkpoint) -> None:
    tensors = TensorMap(checkpoint)
    tensors.without_effect("model.")
    tensors.finish()
    tensors = TensorMap(checkpoint)
    tensors.without_effect(f"{BLOCK}.")
    with pytest.raises(UnsupportedError, match="embed_tokens"):
        tensors.finish()

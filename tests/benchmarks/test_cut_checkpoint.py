"""A cut checkpoint is the first layers of the whole one, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.cut_checkpoint import cut_checkpoint
from converters.checkpoint import Checkpoint
from converters.forward import rms_norm, rope_table, run_layer
from converters.models import describe
from converters.reference import Streamed, logits

IDS = [5, 17, 300, 42, 99, 7, 250]


@pytest.mark.parametrize("shards", [1, 3])
def test_says_what_the_first_layers_say(tiny: Callable[..., Path], tmp_path: Path, shards: int) -> None:
    source = tiny("uneven", shards=shards)
    cut_checkpoint(source, tmp_path / "cut", 2)
    with Checkpoint.open(source) as whole, Checkpoint.open(tmp_path / "cut") as cut:
        decoder, weights = describe(whole), Streamed(whole)
        hidden = weights.gather(decoder.embedding, np.array(IDS))
        cos, sin = rope_table(decoder.rope, len(IDS))
        for layer in decoder.layers[:2]:
            run_layer(weights, layer, decoder, hidden, cos, sin)
        hidden = rms_norm(hidden, weights.vector(decoder.final_norm), decoder.norm_eps)
        found = logits(cut, describe(cut), IDS)
        assert np.array_equal(found, weights.project(decoder.lm_head, hidden))


def test_more_layers_than_there_are(tiny: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="4 of 3 layers"):
        cut_checkpoint(tiny("uneven"), tmp_path / "cut", 4)

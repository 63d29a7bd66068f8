"""In float32 the graph is the model: every shape, every way of feeding it, both engines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.random_checkpoint import SHAPES
from converters.onnx.limits import fused_rotary
from quant.recipe import Recipe, Rule
from tests.converters.onnx_support import (
    F32,
    TOLERANCE,
    Oracle,
    Session,
    convert,
    generator,
    in_chunks,
    random_ids,
)

TINY = [name for name in SHAPES if name not in ("1b", "phi4-mini-full")]
# Head size and rotary width that the attention kernel takes as they are, pads, or cannot rotate.
HEADS = {
    "padded": {"head_dim": 20},
    "padded-one-pair": {"head_dim": 20, "partial_rotary_factor": 0.1},
    "wide-unrotated": {"head_dim": 24, "partial_rotary_factor": 0.5},
    "fused-partial": {"head_dim": 32, "partial_rotary_factor": 0.5},
    "fused-phi-4-mini": {"head_dim": 128, "partial_rotary_factor": 0.75},
    "fused-phi-3-mini": {"head_dim": 96},
    "fused-wider-than-hidden": {"head_dim": 64},
}
FEEDS = {"prefill": [40], "chunks": [17, 1, 22], "decode": [28] + [1] * 12}


def _assert_every_feed_matches(checkpoint: Path, directory: Path, recipe: Recipe = F32) -> None:
    decoder = convert(checkpoint, directory, recipe)
    ids = random_ids(decoder, 40)
    expected = Oracle(checkpoint).logits(ids)
    for feed, sizes in FEEDS.items():
        logits = in_chunks(Session(directory), ids, sizes)
        np.testing.assert_allclose(logits, expected, rtol=0, atol=TOLERANCE, err_msg=feed)


@pytest.mark.parametrize("name", TINY)
def test_onnxruntime_matches_transformers(name: str, tiny: Callable[..., Path], tmp_path: Path) -> None:
    _assert_every_feed_matches(tiny(name), tmp_path)


@pytest.mark.parametrize("case", HEADS)
def test_head_sizes_that_the_kernel_refuses_are_padded(
    case: str, tiny: Callable[..., Path], tmp_path: Path
) -> None:
    checkpoint = tiny("odd-heads", **HEADS[case])
    _assert_every_feed_matches(checkpoint, tmp_path)
    assert fused_rotary(convert(checkpoint, tmp_path)) == case.startswith("fused")


@pytest.mark.parametrize("name", TINY)
def test_genai_matches_transformers(name: str, tiny: Callable[..., Path], tmp_path: Path) -> None:
    decoder = convert(tiny(name), tmp_path)
    ids = random_ids(decoder, 40)
    expected = Oracle(tiny(name)).logits(ids)
    run = generator(tmp_path, 64)
    run.append_tokens(np.array([ids[:20]], np.int32))
    np.testing.assert_allclose(run.get_output("logits")[0], expected[:20], rtol=0, atol=TOLERANCE)
    run.append_tokens(np.array([ids[20:35]], np.int32))
    np.testing.assert_allclose(run.get_output("logits")[0], expected[20:35], rtol=0, atol=TOLERANCE)
    for position in range(35, 40):
        run.append_tokens(np.array([ids[position : position + 1]], np.int32))
        np.testing.assert_allclose(run.get_output("logits")[0, 0], expected[position], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", ["phi4-mini", "phi4", "odd-heads"])
def test_genai_greedy_generation_is_transformers_greedy(
    name: str, tiny: Callable[..., Path], tmp_path: Path
) -> None:
    decoder = convert(tiny(name), tmp_path)
    run = generator(tmp_path, 64)
    run.append_tokens(np.array([random_ids(decoder, 24)], np.int32))
    for _ in range(12):
        run.generate_next_token()
    sequence = [int(i) for i in run.get_sequence(0)]
    expected = Oracle(tiny(name)).logits(sequence)
    assert sequence[24:] == expected[23:-1].argmax(-1).tolist()


def test_query_key_and_value_may_be_stored_differently(tiny: Callable[..., Path], tmp_path: Path) -> None:
    """They are then three matrices side by side in the graph; all storages here hold bf16 values exactly."""
    rules = (
        Rule("*.attention.k", "f32", "cast"),
        Rule("*.attention.*", "bf16", "cast"),
        Rule("*", "f32", "cast"),
    )
    _assert_every_feed_matches(tiny("phi4-mini", dtype="bf16"), tmp_path, Recipe("mixed", rules))


@pytest.mark.parametrize("name", ["phi4", "phi4-mini", "odd-heads"])
def test_a_right_padded_batch_is_two_single_prompts(
    name: str, tiny: Callable[..., Path], tmp_path: Path
) -> None:
    decoder = convert(tiny(name), tmp_path)
    long, short = random_ids(decoder, 12), random_ids(decoder, 7, seed=1)
    ids: np.ndarray[Any, Any] = np.array([long, short + [0] * 5])
    mask = np.array([[1] * 12, [1] * 7 + [0] * 5])
    logits = Session(tmp_path, batch=2).run_batch(ids, mask)
    # Not bit for bit: the blocking of a matrix product depends on its number of rows.
    np.testing.assert_allclose(logits[0], Session(tmp_path).run(long), rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(logits[1, :7], Session(tmp_path).run(short), rtol=0, atol=TOLERANCE)

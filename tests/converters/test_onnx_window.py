"""Sliding window W: a query sees itself and the W - 1 positions before it, whatever way it came in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.converters.onnx_support import (
    TOLERANCE,
    Oracle,
    Session,
    convert,
    generator,
    in_chunks,
    random_ids,
)


@pytest.mark.parametrize("shape", ["phi3-mini-4k", "odd-heads"])
@pytest.mark.parametrize("window", [1, 2, 5])
def test_tiny_windows(shape: str, window: int, tiny: Callable[..., Path], tmp_path: Path) -> None:
    checkpoint = tiny(shape, sliding_window=window)
    decoder = convert(checkpoint, tmp_path)
    ids = random_ids(decoder, 20)
    oracle = Oracle(checkpoint)
    expected = oracle.logits(ids)
    for sizes in ([20], [3, 7, 10], [window] + [1] * (20 - window)):
        logits = in_chunks(Session(tmp_path), ids, sizes)
        np.testing.assert_allclose(logits, expected, rtol=0, atol=TOLERANCE, err_msg=str(sizes))
    # One position more or less is far outside the tolerance.
    wider = Oracle(tiny(shape, sliding_window=window + 1)).logits(ids)
    assert np.abs(wider - expected).max() > 0.1


def test_the_window_of_phi_3_mini(tiny: Callable[..., Path], tmp_path: Path) -> None:
    """2,047 as shipped, around the boundary: prefill, a chunk across it, decode; and in onnxruntime-genai."""
    checkpoint = tiny("phi3-mini-4k")
    decoder = convert(checkpoint, tmp_path, context_length=4096)
    assert decoder.attention.window == 2047
    ids = random_ids(decoder, 2060)
    expected = Oracle(checkpoint).logits(ids, last=20)
    for sizes in ([2060], [2030, 25, 5], [2046] + [1] * 14):
        logits = in_chunks(Session(tmp_path), ids, sizes)[-20:]
        np.testing.assert_allclose(logits, expected, rtol=0, atol=TOLERANCE, err_msg=str(sizes[:3]))
    run = generator(tmp_path, 2100)
    run.append_tokens(np.array([ids[:2040]], np.int32))
    for position in range(2040, 2060):
        run.append_tokens(np.array([ids[position : position + 1]], np.int32))
        logits = run.get_output("logits")[0, 0]
        np.testing.assert_allclose(logits, expected[position - 2040], rtol=0, atol=TOLERANCE)

"""The commands that measure LoftQ and AdaLoRA, at a tiny size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import heal, loftq
from quant.adapters.training import Training

Tiny = Callable[..., Path]


@pytest.fixture(scope="module")
def windows() -> Any:
    return np.random.default_rng(0).integers(3, 600, (12, 24))


def test_the_correction_is_measured_from_nothing_to_trained(tiny: Tiny, windows: Any) -> None:
    rows = list(loftq.measure(tiny("phi4-mini", dtype="f32"), windows[:8], windows[8:], [4, 16], 3, 4, 1e-3))
    assert [row[0] for row in rows] == [
        "int4, rounded to nearest", "rank 4, LoRA of the residual", "rank 4, LoftQ T=3",
        "rank 16, LoRA of the residual", "rank 16, LoftQ T=3",
    ]  # fmt: skip
    nothing, *corrected = rows
    # The best approximation of a residual leaves less of it; so does another that is kept only where it is nearer.
    assert all(row[1] < nothing[1] for row in corrected)
    assert corrected[1][1] <= corrected[0][1]
    assert corrected[2][1] < corrected[0][1]
    assert all(row[2] > 0 for row in rows)
    assert [row[3] is None for row in rows] == [True, False, False, False, False]


def test_both_ways_to_heal_have_as_many_ranks(tiny: Tiny, windows: Any) -> None:
    source, other = tiny("phi4-mini", dtype="f32"), tiny("phi4-mini", dtype="f32", seed=1)
    rows = list(heal.measure(source, other, windows, windows, 2, [Training(40, rate=1e-2, batch=1)]))
    assert [row[0] for row in rows] == ["pruned", "pruned, int4", "LoRA, rate 0.01", "AdaLoRA, rate 0.01"]
    assert rows[2][3] == "2..2"
    assert all(row[1] < rows[1][1] for row in rows[2:])

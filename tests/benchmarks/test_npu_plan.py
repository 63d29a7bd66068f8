"""How a whole model is cut for the NPU: as few parts as the session allows."""

from __future__ import annotations

import pytest

from benchmarks.npu_plan import Measured, cuts

MB = 1_000_000
TWO_STAGES = Measured(first=120 * MB, each=115 * MB, shared=0.5, first_peak=0, each_peak=0)


@pytest.mark.parametrize("limit", [300 * MB, 1000 * MB, 3584 << 20])
def test_no_session_is_too_large_and_one_part_fewer_would_be(limit: int) -> None:
    for cut in cuts(TWO_STAGES, 32, 9 * MB, limit):
        assert cut.session <= limit
        assert cut.splits * cut.layers >= 32
        if cut.splits > 1:
            fewer = -(-32 // (cut.splits - 1))
            stages = {"both stages in one session": 2.0}.get(cut.arrangement, 1.0)
            assert TWO_STAGES.of(fewer) / 2 * stages + 2 * fewer * 9 * MB > limit


def test_shared_weights_halve_the_disk() -> None:
    apart, both, shared = cuts(TWO_STAGES, 32, 9 * MB, 3584 << 20)
    assert both.disk >= apart.disk
    assert shared.disk == pytest.approx(apart.disk / 2, rel=0.01)
    assert (apart.splits, both.splits, shared.splits) == (1, 2, 1)


def test_a_layer_that_no_session_holds_has_no_cut() -> None:
    assert cuts(TWO_STAGES, 32, 9 * MB, 50 * MB) == []

"""`edge distill --method moe`: a run that was stopped ends with the bytes of one that was not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.bundle import sha256
from edge.distilling.moe import MoeRequest, distill, plan
from edge.progress import Silent

Tiny = Callable[..., Path]
TEXT = Path(__file__).parents[2] / "quant" / "calibration.txt"


class Stopping(Silent):
    """Ends the run, as a kill would, when the given step is told."""

    def __init__(self, step: int) -> None:
        self._left = step

    def advance(self, n: int) -> None:
        self._left -= n
        if self._left == 0:
            raise KeyboardInterrupt


def test_a_stopped_run_goes_on_to_the_same_bytes(tiny: Tiny, tmp_path: Path) -> None:
    """Weights, optimizer and the experts that are drawn: all of it is in the state."""
    teacher = tiny("phi3-mini-4k")
    records = []
    for name, stops in (("through", ()), ("stopped", (5, 4))):
        (tmp_path / name).mkdir()
        request = MoeRequest(
            str(teacher), TEXT, tmp_path / name / "out", steps=8, batch=2, length=32, save_every=3
        )
        for step in stops:
            with pytest.raises(KeyboardInterrupt):
                distill(plan(request), Stopping(step))
            assert not request.output.exists()
        records.append(distill(plan(request), Silent()))
        assert [p.name for p in (tmp_path / name).iterdir()] == ["out"]
    files = [sha256(tmp_path / name / "out" / "model.safetensors") for name in ("through", "stopped")]
    assert files[0] == files[1]
    assert records[0] == records[1]
    written = json.loads((tmp_path / "through" / "out" / "shrink.json").read_text())
    assert written["settings"]["experts"] == 4
    assert written["teacher"]["files"]["model.safetensors"] == sha256(teacher / "model.safetensors")

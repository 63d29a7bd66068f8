"""`edge distill --method moebert`: stopped and gone on, its record, and a bundle that its proof holds for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.bundle import sha256
from edge.convert import ConvertRequest, convert
from edge.distilling.moebert import distill
from edge.distilling.moebert_plan import MoebertRequest, plan
from edge.plan import plan as plan_convert
from edge.progress import Silent
from edge.shrink import read_plan, shrink
from tests.encoder_checkpoint import write_encoder

Tiny = Callable[..., Path]
TEXT = Path(__file__).parents[2] / "quant" / "calibration.txt"


class Stopping(Silent):
    """Ends the run, as a kill would, when the given step of training is told."""

    def __init__(self, step: int) -> None:
        self._left, self._training, self.ranked = step, False, 0

    def stage(self, name: str, total: int | None = None, unit: str = "bytes") -> None:
        self._training = name.startswith("train")

    def advance(self, n: int) -> None:
        if not self._training:
            self.ranked += n
            return
        self._left -= n
        if self._left == 0:
            raise KeyboardInterrupt


def labelled(directory: Path) -> Path:
    words = [
        "good film",
        "it was dull",
        "a good film",
        "bad",
        "the bad film was dull",
        "good",
        "it was good",
        "dull",
    ]
    lines = [json.dumps({"text": w, "label": "yes" if "good" in w else "no"}) for w in words]
    (directory / "lines.jsonl").write_text("\n".join(lines))
    return directory / "lines.jsonl"


@pytest.mark.parametrize("kind", ["decoder", "encoder"])
def test_a_stopped_run_goes_on_to_the_same_bytes(kind: str, tiny: Tiny, tmp_path: Path) -> None:
    """Weights, tables, optimizer and dropout are in the state; neurons are ranked once."""
    if kind == "decoder":
        teacher, text = tiny("phi3-mini-4k"), TEXT
    else:
        teacher, text = write_encoder(tmp_path / "bert", layers=2), labelled(tmp_path)
    records = []
    for name, stops in (("through", ()), ("stopped", (5, 4))):
        (tmp_path / name).mkdir()
        request = MoebertRequest(
            str(teacher), text, tmp_path / name / "out", steps=8, batch=2, length=16, save_every=3, ranked=6
        )
        for ranked, step in zip((6, 0), stops, strict=False):
            stopping = Stopping(step)
            with pytest.raises(KeyboardInterrupt):
                distill(plan(request), stopping)
            assert not request.output.exists()
            assert stopping.ranked == ranked
        records.append(distill(plan(request), Silent()))
        assert [p.name for p in (tmp_path / name).iterdir()] == ["out"]
    files = [sha256(tmp_path / name / "out" / "model.safetensors") for name in ("through", "stopped")]
    assert files[0] == files[1]
    assert records[0] == records[1]
    written = json.loads((tmp_path / "through" / "out" / "shrink.json").read_text())
    assert written["method"] == "moebert"
    assert written["split"]["experts"] == 4
    assert written["teacher"]["files"]["model.safetensors"] == sha256(teacher / "model.safetensors")
    assert set(written["losses"]) == {"task", "hidden", "kl"}


@pytest.mark.parametrize("precision", ["int4", "int8"])
def test_the_student_becomes_a_proven_bundle(precision: str, tiny: Tiny, tmp_path: Path) -> None:
    """Within the limits of a dense model: routing by ids has no tie that a rounding could break."""
    student = tmp_path / "student"
    request = MoebertRequest(
        str(tiny("phi4-mini")), TEXT, student, steps=3, batch=2, length=16, ranked=4, routing="hash-balance"
    )
    planned = plan(request)
    record = distill(planned, Silent())
    assert record["active_parameters"] < record["student_parameters"] <= record["teacher_parameters"]
    asked = ConvertRequest(
        str(student), ("cpu",), precision=precision, output=tmp_path / "bundle", context=128
    )
    convert(plan_convert(asked), Silent())
    assert json.loads((tmp_path / "bundle" / "manifest.json").read_text())["proof"] == "passed"


def test_it_is_a_step_of_a_plan(tiny: Tiny, tmp_path: Path) -> None:
    """And the record of the step before it stands in its own."""
    file = tmp_path / "plan.toml"
    file.write_text(
        f"model = {json.dumps(str(tiny('phi4-mini')))}\ntext = {json.dumps(str(TEXT))}\n"
        '[[step]]\ndo = "distill"\nlayers = 1\nsteps = 1\nlength = 8\nbatch = 1\nmethod = "ft"\n'
        '[[step]]\ndo = "distill"\nmethod = "moebert"\nexperts = 2\nsteps = 1\nlength = 8\nbatch = 1\nranked = 1\n'
    )
    places = shrink(read_plan(file), tmp_path / "made", Silent())
    records = [json.loads((place / "shrink.json").read_text()) for place in places]
    assert [r["method"] for r in records] == ["ft", "moebert"]
    assert records[1]["before"]["method"] == "ft"

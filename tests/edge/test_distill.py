"""`edge distill` end to end: what it writes converts, says how it was made, and does not depend on interruptions."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from edge import cli
from edge.distill import distill
from edge.distilling.plan import DistillRequest, plan
from edge.progress import Silent
from tests.encoder_checkpoint import write_encoder

Tiny = Callable[..., Path]
TEXT = "It was very good, and it was very dull; the rest is not to be told in a line. " * 60


class InterruptAt(Silent):
    """Ctrl-C after so many units of progress."""

    def __init__(self, count: int) -> None:
        self.left = count

    def advance(self, n: int) -> None:
        self.left -= n
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def request_(tiny: Tiny, tmp_path: Path) -> DistillRequest:
    text = tmp_path / "text.txt"
    text.write_text(TEXT)
    teacher = tiny("phi4-mini", num_hidden_layers=4)
    return DistillRequest(
        str(teacher), text, tmp_path / "student", layers=2, steps=6, filter_steps=4, length=16, batch=4
    )


def files(directory: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(directory.iterdir())}


def test_an_interrupted_run_ends_with_the_same_bytes(request_: DistillRequest) -> None:
    distill(plan(request_))
    whole = files(request_.output)
    shutil.rmtree(request_.output)
    # In the teacher's filters, in the student's filters, in the student; 4 + 4 + 6 steps in all.
    for count in (2, 4, 5):
        with pytest.raises(KeyboardInterrupt):
            distill(plan(request_), InterruptAt(count))
        assert not request_.output.exists()
    distill(plan(request_))
    assert files(request_.output) == whole
    assert sorted(p.name for p in request_.output.parent.iterdir()) == ["student", "text.txt"]


def test_the_student_converts_with_a_proof_and_says_how_it_was_made(
    request_: DistillRequest, tmp_path: Path
) -> None:
    distill(plan(request_))
    bundle = tmp_path / "bundle"
    assert cli.main(["convert", str(request_.output), "-t", "cpu", "-o", str(bundle)]) == 0
    assert all(v["passed"] for v in json.loads((bundle / "proof.json").read_text())["variants"].values())
    record = json.loads((request_.output / "shrink.json").read_text())
    assert record["method"] == "ted"
    assert record["cut"] == {"layers": [0, 3], "changes": {"num_hidden_layers": 2}}
    assert record["text"]["sha256"] == hashlib.sha256(TEXT.encode()).hexdigest()
    weights = (Path(request_.teacher) / "model.safetensors").read_bytes()
    assert record["teacher"]["files"]["model.safetensors"] == hashlib.sha256(weights).hexdigest()
    assert set(record["losses"]) == {"task", "kl", "hidden"}
    assert str(tmp_path) not in json.dumps(record)


def test_an_encoder_learns_its_labels(tmp_path: Path) -> None:
    teacher, lines = write_encoder(tmp_path / "bert"), tmp_path / "lines.jsonl"
    rows = [
        {"text": f"the film was {w}", "label": "yes" if w == "good" else "no"} for w in ("good", "bad")
    ] * 8
    lines.write_text("\n".join(map(json.dumps, rows)))
    request = DistillRequest(
        str(teacher),
        lines,
        tmp_path / "student",
        layers=2,
        steps=30,
        filter_steps=3,
        rate=3e-3,
        kl=0.0,
        hidden_weight=0.0,
    )
    distill(plan(request))
    student = AutoModelForSequenceClassification.from_pretrained(request.output).eval()
    assert student.config.num_hidden_layers == 2
    ids = torch.tensor([[2, 8, 6, 10, 4, 3], [2, 8, 6, 10, 5, 3]])
    assert student(ids).logits.argmax(-1).tolist() == [1, 0]


def test_a_plan_needs_no_torch(request_: DistillRequest) -> None:
    program = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = None\n"
        "from edge.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    words = [
        "distill",
        request_.teacher,
        "--text",
        str(request_.text),
        "--layers",
        "2",
        "-o",
        "x",
        "--length",
        "16",
    ]
    run = [sys.executable, "-c", program, *words]
    assert subprocess.run([*run, "--dry-run"], capture_output=True, cwd=request_.text.parent).returncode == 0
    refused = subprocess.run(run, capture_output=True, text=True, cwd=request_.text.parent)
    assert refused.returncode == 1
    assert "hint: pip install 'edge[shrink]'" in refused.stderr

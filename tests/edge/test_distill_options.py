"""`edge distill` with CAMERO, COSMOS and muP: checkpoints like any other, records that say so, exact resume."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file
from transformers import AutoModelForSequenceClassification

from converters.errors import UnsupportedError
from edge import cli
from edge.distill import distill
from edge.distilling.plan import DistillRequest, plan
from edge.progress import Silent
from tests.encoder_checkpoint import write_encoder

Tiny = Callable[..., Path]


class InterruptAt(Silent):
    """Ctrl-C after so many steps."""

    def __init__(self, count: int) -> None:
        self.left = count

    def advance(self, n: int) -> None:
        self.left -= n
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def encoder(tmp_path: Path) -> DistillRequest:
    rows = [
        {"text": f"a {word} film", "label": label} for word, label in (("good", "yes"), ("dull", "no"))
    ] * 6
    text = tmp_path / "lines.jsonl"
    text.write_text("\n".join(map(json.dumps, rows)))
    teacher = write_encoder(tmp_path / "bert")
    return DistillRequest(str(teacher), text, tmp_path / "student", layers=2, steps=8, length=8, batch=4)


@pytest.fixture
def decoder(tiny: Tiny, tmp_path: Path) -> DistillRequest:
    text = tmp_path / "text.txt"
    text.write_text("It was very good, and it was very dull; the rest is not to be told in a line. " * 60)
    teacher = str(tiny("phi4-mini", num_hidden_layers=4))
    return DistillRequest(teacher, text, tmp_path / "student", "kd", layers=2, steps=6, length=16, batch=4)


def made(request: DistillRequest) -> tuple[bytes, dict[str, Any]]:
    record = json.loads((request.output / "shrink.json").read_text())
    return (request.output / "model.safetensors").read_bytes(), record


def interrupted_and_whole(request: DistillRequest) -> tuple[bytes, dict[str, Any]]:
    """What the whole run made, which an interrupted one must make too."""
    distill(plan(request))
    whole = made(request)
    parted = replace(request, output=request.output.with_name("parted"))
    with pytest.raises(KeyboardInterrupt):
        distill(plan(parted), InterruptAt(4))
    distill(plan(parted))
    assert made(parted) == whole
    return whole


def test_camero_leaves_an_encoder_with_one_head(encoder: DistillRequest) -> None:
    request = replace(encoder, method="camero", heads=3, perturbation="r3f", consistency=2.0)
    _, record = interrupted_and_whole(request)
    assert record["settings"]["camero"] == {
        "heads": 3, "perturbation": "r3f", "consistency": 2.0, "consistency_target": "ensemble",
    }  # fmt: skip
    assert record["method"] == "camero"
    assert record["settings"]["kl"] == 0.0
    assert set(record["losses"]) == {"task", "consistency"}
    theirs, own = (load_file(Path(d) / "model.safetensors") for d in (request.teacher, request.output))
    assert set(own) == {name for name in theirs if ".layer.2." not in name and ".layer.3." not in name}
    assert AutoModelForSequenceClassification.from_pretrained(request.output).config.num_labels == 2


def test_cosmos_and_mup_make_other_students_and_resume_exactly(decoder: DistillRequest) -> None:
    distill(plan(decoder))
    plain, record = made(decoder)
    assert (record["settings"]["optimizer"], record["settings"]["mup"]) == ("adamw", 0)
    cosmos, record = interrupted_and_whole(
        replace(decoder, optimizer="cosmos", output=decoder.output.with_name("cosmos"))
    )
    assert record["settings"]["optimizer"] == "cosmos"
    distill(plan(replace(decoder, mup=32, output=decoder.output.with_name("mup"))))
    mup, record = made(replace(decoder, output=decoder.output.with_name("mup")))
    assert record["settings"]["mup"] == 32
    assert len({plain, cosmos, mup}) == 3
    width = json.loads((Path(decoder.teacher) / "config.json").read_text())["hidden_size"]
    distill(plan(replace(decoder, mup=width, output=decoder.output.with_name("same"))))
    # At its own width muP scales by 1: the norms of the clipped gradients are summed in another order, no more.
    assert made(replace(decoder, output=decoder.output.with_name("same")))[1]["losses"] == pytest.approx(
        json.loads((decoder.output / "shrink.json").read_text())["losses"], rel=1e-4
    )


def test_a_state_of_another_optimizer_is_not_gone_on_from(decoder: DistillRequest) -> None:
    with pytest.raises(KeyboardInterrupt):
        distill(plan(decoder), InterruptAt(3))
    with pytest.raises(UnsupportedError, match="other settings"):
        distill(plan(replace(decoder, optimizer="cosmos")))


def test_of_launched_processes_the_first_tells_results_and_the_others_wait_with_errors(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(cli.time, "sleep", waited.append)
    monkeypatch.setenv("WORLD_SIZE", "2")
    before = sys.stdout
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("LOCAL_RANK", rank)
        try:
            assert cli.main(["--version"]) == 0
            assert cli.main(["distill"]) == 1
        finally:
            sys.stdout = before
        told = capsys.readouterr()
        assert told.out.startswith("edge") == (rank == "0")
        assert told.err.startswith("error: ")
        assert waited == ([] if rank == "0" else [cli.PATIENCE])

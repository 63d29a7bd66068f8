"""`accelerate launch -m edge distill`: two processes leave the student that one leaves, and stop and go on as one."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.encoder_checkpoint import WORDS, write_encoder

LAUNCH = (sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
          "--main_process_port", "0", "-m", "edge")  # fmt: skip
ALONE = (sys.executable, "-m", "edge")
# 9 examples do not halve, and their lengths differ: the processes' means are over different numbers of items.
OPTIONS = ("distill", "bert", "--text", "lines.jsonl", "--layers", "2", "--batch", "9", "--length", "16",
           "--rate", "1e-3")  # fmt: skip


def run(place: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=place, env=environment(), capture_output=True, text=True, timeout=240)


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    write_encoder(tmp_path / "bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    drawn = random.Random(0)
    with (tmp_path / "lines.jsonl").open("w") as file:
        for _ in range(64):
            words = [drawn.choice(WORDS[4:]) for _ in range(drawn.randint(1, 14))]
            file.write(json.dumps({"text": " ".join(words), "label": int("good" in words)}) + "\n")
    return tmp_path


@pytest.mark.slow
def test_two_processes_leave_the_student_of_one(place: Path) -> None:
    for launcher, output in ((ALONE, "one"), (LAUNCH, "two")):
        done = run(place, *launcher, *OPTIONS, "--steps", "12", "-o", output)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("next: edge convert") == 1, "one process speaks"
    one, two = (load_file(place / output / "model.safetensors") for output in ("one", "two"))
    assert one.keys() == two.keys()
    for name, values in one.items():
        # float32 sums in another order, 32 steps of TED long: 1.1e-6 was seen.
        np.testing.assert_allclose(two[name], values, atol=2e-5, err_msg=name)
    records = [json.loads((place / output / "shrink.json").read_text()) for output in ("one", "two")]
    assert [record["settings"]["processes"] for record in records] == [1, 2]
    assert records[1]["losses"] == pytest.approx(records[0]["losses"], rel=1e-2, abs=1e-5)
    assert sorted(p.name for p in place.iterdir()) == ["bert", "lines.jsonl", "one", "two"]


@pytest.mark.slow
def test_ctrl_c_at_the_terminal_keeps_the_state_and_the_rest_ends_as_a_whole_run(place: Path) -> None:
    command = (*LAUNCH, *OPTIONS, "--method", "kd", "--steps", "150", "--save-every", "100000")
    whole = run(place, *command, "-o", "whole")
    assert whole.returncode == 0, whole.stderr
    with (place / "log").open("w") as log:
        started = subprocess.Popen(
            (*command, "-o", "parted"),
            cwd=place,
            env=environment(),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        until = time.monotonic() + 200
        while "step 30 of 150" not in (place / "log").read_text() and time.monotonic() < until:
            time.sleep(0.05)
        os.killpg(started.pid, signal.SIGINT)  # as a terminal does: to launcher and processes
        assert started.wait(60) != 0
    said = (place / "log").read_text()
    assert "the state is kept in" in said
    assert said.count("interrupted\n") == 1
    assert not (place / "parted").exists()
    rest = run(place, *command, "-o", "parted")
    assert rest.returncode == 0, rest.stderr
    assert "going on from" in rest.stderr
    for output in ("model.safetensors", "shrink.json"):
        assert (place / "parted" / output).read_bytes() == (place / "whole" / output).read_bytes()

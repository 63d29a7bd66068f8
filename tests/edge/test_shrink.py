"""A chain of steps: what comes out is proven, and a kill in its midst changes no bit of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from converters.errors import UnsupportedError
from edge.progress import Silent
from edge.shrink import read_plan, shrink

RUN = "import sys; from edge.cli import main; sys.exit(main())"
Tiny = Callable[..., Path]
PLAN = """
model = "{model}"
text = "text.txt"

[[step]]
do = "prune"
neurons = 0.75
steps = 10
batch = 2
length = 16

[[step]]
do = "distill"
method = "{method}"
layers = 1
steps = {steps}
batch = 2
length = 16
save_every = 2

[[step]]
do = "heal"
method = "loftq"
rank = 32

[[step]]
do = "convert"
targets = ["cpu", "android"]
context = 64
"""


def plan(directory: Path, model: Path, *, method: str = "kd", steps: int = 8) -> Path:
    directory.mkdir()
    (directory / "text.txt").write_text("A text of many words, and then some more of them. " * 200)
    (directory / "plan.toml").write_text(PLAN.format(model=model, method=method, steps=steps))
    return directory / "plan.toml"


def content(directory: Path) -> dict[str, bytes]:
    files = (p for p in sorted(directory.rglob("*")) if p.is_file())
    return {p.relative_to(directory).as_posix(): p.read_bytes() for p in files}


def test_a_chain_ends_in_a_proven_bundle(tiny: Tiny, tmp_path: Path) -> None:
    """Each step is smaller than the one before, says how it was made, and the healing adapter is in the bundle."""
    places = shrink(
        read_plan(plan(tmp_path / "p", tiny("phi4-mini"), method="ted", steps=4)), tmp_path / "out", Silent()
    )
    configs = [json.loads((place / "config.json").read_text()) for place in places[:3]]
    records = [json.loads((place / "shrink.json").read_text()) for place in places[:3]]
    assert [record["step"] for record in records] == ["prune", "distill", "heal"]
    assert configs[0]["intermediate_size"] == 0.75 * 256
    assert configs[1]["num_hidden_layers"] == 1
    bundle = json.loads((places[3] / "manifest.json").read_text())
    assert bundle["proof"] == "passed"
    assert [adapter["name"] for adapter in bundle["adapters"]] == ["healed"]
    proof = json.loads((places[3] / "proof.json").read_text())
    for variant in proof["variants"].values():
        # LoftQ's correction is worth it on what it was made for: the bundle's own int4 weights.
        assert variant["adapters"]["healed"]["quality"]["kl_mean"] < variant["quality"]["kl_mean"]


def test_a_killed_chain_goes_on_to_the_same_bits(tiny: Tiny, tmp_path: Path) -> None:
    file = plan(tmp_path / "p", tiny("phi4-mini"), steps=40)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    shrink(read_plan(file), whole, Silent())
    command = [sys.executable, "-c", RUN, "shrink", str(file), "-o", str(killed)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        state = killed / ".2-distill.edge-distill"
        until = time.monotonic() + 120
        while not (state.exists() and any(state.rglob("*"))) and process.poll() is None:
            assert time.monotonic() < until, "distillation kept no state"
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    assert (killed / "1-prune").exists()
    assert not (killed / "2-distill").exists()
    shrink(read_plan(file), killed, Silent())
    assert content(killed) == content(whole)


def test_a_step_of_another_plan_is_not_taken_for_this_ones(tiny: Tiny, tmp_path: Path) -> None:
    file = plan(tmp_path / "p", tiny("phi4-mini"), steps=2)
    text = file.read_text()
    file.write_text(text[: text.index('[[step]]\ndo = "distill"')])
    (place,) = shrink(read_plan(file), tmp_path / "out", Silent())
    before = place.stat().st_mtime_ns
    assert shrink(read_plan(file), tmp_path / "out", Silent()) == [place]
    assert place.stat().st_mtime_ns == before
    file.write_text(file.read_text().replace("neurons = 0.75", "neurons = 0.5"))
    with pytest.raises(UnsupportedError, match="another plan"):
        shrink(read_plan(file), tmp_path / "out", Silent())

"""Models that see and hear keep the rules of the rest: memory that does not grow, and nothing left by a kill."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.measure import Cost, measure, size
from benchmarks.tiny_multimodal import write_multimodal
from benchmarks.tiny_multimodal_shapes import Tower
from edge.streaming import CHUNK_BYTES
from tests.edge.multimodal_support import VOCABULARY
from tests.messages import ROOT

EDGE = str(Path(sys.executable).with_name("edge"))
# Wide enough that holding the model whole would show.
WIDTH: dict[str, int] = {
    "hidden_size": 512,
    "intermediate_size": 8192,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
}


def convert(work: Path, layers: int, encoder_layers: int) -> tuple[Cost, int]:
    """Cost of converting a checkpoint of so many layers, and its bytes."""
    checkpoint, bundle = work / "checkpoint", work / "bundle"
    write_multimodal(
        checkpoint,
        "phi4_multimodal",
        vocab_size=VOCABULARY,
        tower=Tower(768, 3072, encoder_layers),
        num_hidden_layers=layers,
        **WIDTH,
    )
    command = [EDGE, "convert", str(checkpoint), "--target=cpu", "--no-proof", "--threads=2"]
    command += ["-o", str(bundle)]
    dry = subprocess.run([*command, "--dry-run", "--json"], capture_output=True, check=True)
    cost = measure(command, log=work / "log")
    assert cost.peak_bytes < json.loads(dry.stdout)["memory_bytes"]
    nbytes = size(checkpoint)
    print(f"{layers} and {encoder_layers} layers, {nbytes / 1e6:.0f} MB: {cost.peak_mib:.0f} MiB")
    for made in (checkpoint, bundle):
        shutil.rmtree(made)
    return cost, nbytes


def test_the_peak_grows_with_no_ones_depth(tmp_path: Path) -> None:
    few, small = convert(tmp_path, 2, 3)
    # As tests/edge/test_memory.py: 10 %, and a chunk in flight.
    noise = 0.1 * few.peak_bytes + 2 * CHUNK_BYTES
    for layers, encoder_layers in ((14, 3), (2, 20)):
        many, large = convert(tmp_path, layers, encoder_layers)
        assert large - small > 3 * noise, "the model hardly grew: this shows nothing"
        assert abs(many.peak_bytes - few.peak_bytes) < noise


def test_kills_leave_the_old_bundle_or_none(tiny_multimodal: Callable[..., Path], tmp_path: Path) -> None:
    checkpoint = tiny_multimodal("phi4_multimodal", vocab_size=VOCABULARY)
    command = [sys.executable, "-m", "tests.edge.kill_loop", str(checkpoint), str(tmp_path / "b"), "16", "7"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    print(result)
    assert result["killed"] >= 8, "too few conversions were still running when they were killed"
    assert result["left"] == ["b"]

"""Bounded memory: the peak of a conversion does not grow with the model (design, rule 1)."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.measure import Cost, measure, size
from benchmarks.random_checkpoint import SHAPES, write_checkpoint
from edge.streaming import CHUNK_BYTES

MIB = 1 << 20
DISK_BYTES = 20e9
EDGE = str(Path(sys.executable).with_name("edge"))


def convert(
    work: Path, layers: int, targets: tuple[str, ...] = ("android", "cpu"), **overrides: Any
) -> tuple[Cost, int]:
    """Cost of converting phi-4-mini's true width with `layers` layers for `targets`, and its bytes.

    The peak must also keep what --dry-run promised.
    """
    config = SHAPES["phi4-mini-full"] | {"num_hidden_layers": layers} | overrides
    checkpoint = work / f"checkpoint-{layers}"
    write_checkpoint(checkpoint, config, shards=2)
    command = [EDGE, "convert", str(checkpoint), *(f"--target={target}" for target in targets), "--no-proof"]
    command += ["--threads", "2"]
    dry = subprocess.run([*command, "--dry-run", "--json"], capture_output=True, check=True)
    cost = measure([*command, "-o", str(work / f"bundle-{layers}")], log=work / "log")
    assert cost.peak_bytes < json.loads(dry.stdout)["memory_bytes"]
    nbytes = size(checkpoint)
    print(f"{layers} layers, {nbytes / 1e6:.0f} MB: {cost.seconds:.1f} s, {cost.peak_mib:.0f} MiB")
    shutil.rmtree(checkpoint)
    return cost, nbytes


def check(few: Cost, many: Cost) -> None:
    assert max(few.peak_bytes, many.peak_bytes) < 512 * MIB
    # 10 %, and one chunk's raw rows and what is made of them: how many chunks are in flight together is chance, and
    # the longer run meets the worst of it more likely (measured beside other programs: 10.6 %).
    assert abs(many.peak_bytes - few.peak_bytes) < 0.1 * few.peak_bytes + 2 * CHUNK_BYTES


@pytest.mark.parametrize(
    "targets", [("android", "cpu"), ("android-npu",), ("windows",)], ids=["cpu", "npu", "dml"]
)
def test_the_peak_does_not_grow_with_depth(targets: tuple[str, ...], tmp_path: Path) -> None:
    few, small = convert(tmp_path, 1, targets, vocab_size=16384)
    many, large = convert(tmp_path, 4, targets, vocab_size=16384)
    assert large > 2 * small
    assert many.peak_bytes < large / 2, "the model is small enough to be held whole: this shows nothing"
    check(few, many)


@pytest.mark.slow
def test_a_whole_phi_4_mini_stays_under_512_mib(tmp_path: Path) -> None:
    """3.8B parameters in bfloat16, and a quarter of the layers."""
    if shutil.disk_usage(tmp_path).free < DISK_BYTES:
        pytest.skip(f"needs {DISK_BYTES / 1e9:.0f} GB of disk")
    quarter, _ = convert(tmp_path, 8)
    whole, nbytes = convert(tmp_path, 32)
    assert nbytes > 7e9
    check(quarter, whole)

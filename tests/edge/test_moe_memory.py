"""Bounded memory with experts: the peak grows neither with depth nor with the number of experts."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.measure import Cost, measure, size
from benchmarks.random_checkpoint import MOE_SHAPES, write_checkpoint
from edge.streaming import CHUNK_BYTES

MIB = 1 << 20
EDGE = str(Path(sys.executable).with_name("edge"))
TRUE_WIDTH_BYTES = 20e9


def convert(work: Path, **overrides: Any) -> tuple[Cost, int]:
    """Cost of converting a cut of Phi-3.5-MoE for both engines, and the checkpoint's bytes."""
    checkpoint = work / "checkpoint"
    write_checkpoint(checkpoint, MOE_SHAPES["phi3.5-moe-full"] | overrides, shards=2)
    command = [EDGE, "convert", str(checkpoint), "--target=cpu", "--target=android", "--no-proof"]
    cost = measure([*command, "--threads", "2", "-o", str(work / "bundle")], log=work / "log")
    nbytes = size(checkpoint)
    print(f"{overrides}, {nbytes / 1e6:.0f} MB: {cost.seconds:.1f} s, {cost.peak_mib:.0f} MiB")
    for made in ("checkpoint", "bundle"):
        shutil.rmtree(work / made)
    return cost, nbytes


def check(few: Cost, many: Cost) -> None:
    """As tests/edge/test_memory.py: 10 %, and one chunk's raw rows and what is made of them."""
    assert max(few.peak_bytes, many.peak_bytes) < 1024 * MIB
    assert abs(many.peak_bytes - few.peak_bytes) < 0.1 * few.peak_bytes + 2 * CHUNK_BYTES


def test_the_peak_grows_neither_with_depth_nor_with_experts(tmp_path: Path) -> None:
    heads = {"num_attention_heads": 8, "num_key_value_heads": 2}
    width = {"hidden_size": 1024, "intermediate_size": 1600, "vocab_size": 8192, **heads}
    few, small = convert(tmp_path, **width, num_hidden_layers=1)
    many, large = convert(tmp_path, **width, num_hidden_layers=4)
    fewer, _ = convert(tmp_path, **width, num_hidden_layers=4, num_local_experts=4)
    assert large > 2 * small
    assert many.peak_bytes < large / 2, "the model is small enough to be held whole: this shows nothing"
    check(few, many)
    check(few, fewer)


@pytest.mark.slow
def test_a_cut_at_true_width_stays_under_1_gib(tmp_path: Path) -> None:
    """Two and four layers of 16 experts of 6400 x 4096, 2.6 GB each in bfloat16."""
    if shutil.disk_usage(tmp_path).free < TRUE_WIDTH_BYTES:
        pytest.skip(f"needs {TRUE_WIDTH_BYTES / 1e9:.0f} GB of disk")
    two, _ = convert(tmp_path, num_hidden_layers=2)
    four, nbytes = convert(tmp_path, num_hidden_layers=4)
    assert nbytes > 10e9
    check(two, four)

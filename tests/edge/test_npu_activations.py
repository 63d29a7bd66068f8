"""`edge convert --activations u16`: the ranges are measured, kept and said; the bundle is proven like any other."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.checkpoint import Checkpoint
from converters.models import describe
from converters.onnx.npu.qdq import RANGES_FILE
from edge.bundle import load
from edge.calibration_text import LENGTH
from edge.convert import ConvertRequest, convert, plan
from edge.progress import Silent
from edge.ranges import MARGIN, WINDOWS
from edge.verification import verify
from quant.ranges import measure_ranges
from tests.edge.npu_emulator import needs_emulator

Tiny = Callable[..., Path]


def make(checkpoint: Path, output: Path, **changes: Any) -> Path:
    chosen: dict[str, Any] = {"targets": ("android-npu",), "context": 128, "output": output, **changes}
    convert(plan(ConvertRequest(str(checkpoint), activations="u16", **chosen)), Silent())
    return output


@pytest.fixture(scope="module")
def bundle(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tiny("phi4-mini"), tmp_path_factory.mktemp("u16") / "b", socs=("SM8450",))


@needs_emulator
def test_graph_and_binary_are_proven(bundle: Path) -> None:
    assert [v.name for v in load(bundle).variants] == ["npu-int4-u16", "npu-int4-u16-SM8450"]
    proof = json.loads((bundle / "proof.json").read_text())
    assert proof["passed"]
    for result in proof["variants"].values():
        # As for float16: what is left is what attention and norms, which stay in it, round off.
        assert result["fidelity"]["cosine"] >= 0.999
    assert verify(bundle, None, Silent()).ok


@needs_emulator
def test_every_node_is_on_the_npu(bundle: Path) -> None:
    (placed,) = load(bundle).manifest["placement"].values()
    for stage in ("context", "iterator"):
        assert list(placed[stage]) == ["QNNExecutionProvider"]
        assert "MatMulNBits" not in placed[stage]["QNNExecutionProvider"]
        assert placed[stage]["QNNExecutionProvider"]["MatMul"] == 10


@needs_emulator
def test_the_ranges_are_in_the_folder_and_in_the_manifest(bundle: Path) -> None:
    said = load(bundle).manifest["activations"]
    assert (said["margin"], said["windows"]) == (MARGIN, WINDOWS)
    assert said["ranges"] == json.loads((bundle / "npu-int4-u16" / RANGES_FILE).read_bytes())
    assert len(said["ranges"]) == 2 * 2 * (
        7 + 1
    )  # two layers, both ends of seven matrices, and of down most tokens'
    assert load(bundle).manifest["variants"][0]["recipe"]["activations"] == "u16"


def test_without_a_proof_it_needs_no_plugin_and_is_the_same_on_every_run(tiny: Tiny, tmp_path: Path) -> None:
    """Twice, with one and three threads."""
    bundles = [make(tiny("phi4"), tmp_path / str(n), proof=False, threads=n) for n in (1, 3)]
    one, other = (load(each).manifest["files"] for each in bundles)
    assert one == other


@needs_emulator
def test_a_text_of_ones_own(tiny: Tiny, tmp_path: Path) -> None:
    """Calibrated codes and scales of a row go together."""
    text = tmp_path / "text.txt"
    text.write_text("All work and no play makes Jack a dull boy. " * 900)
    made = make(tiny("phi4"), tmp_path / "b", proof=False, calibrate=text)
    assert load(made).manifest["activations"]["text"] == "text.txt"
    assert verify(made, str(tiny("phi4")), Silent()).ok


def test_other_targets_are_as_they_were(tiny: Tiny, tmp_path: Path) -> None:
    """`u16` is the NPU's: the codes of the others have free block scales."""
    both = load(make(tiny("phi4"), tmp_path / "both", targets=("android-npu", "cpu"), proof=False)).manifest
    request = ConvertRequest(str(tiny("phi4")), ("cpu",), context=128, output=tmp_path / "cpu", proof=False)
    convert(plan(request), Silent())
    alone = load(tmp_path / "cpu").manifest
    name = "onnx-int4/model.onnx.data"
    assert both["files"][name] == alone["files"][name]


def test_the_plan_knows_the_memory_that_measuring_takes(tiny: Tiny, tmp_path: Path) -> None:
    """Against what measuring allocates at its peak, by tracemalloc, on a wide layer."""
    wide = tiny("phi4", hidden_size=512, intermediate_size=2048, num_hidden_layers=1)
    plans = [
        plan(ConvertRequest(str(wide), ("android-npu",), context=128, activations=form))
        for form in ("f16", "u16")
    ]
    expected = plans[1].memory_bytes - plans[0].memory_bytes
    with Checkpoint.open(wide) as checkpoint:
        decoder = describe(checkpoint)
        windows = np.zeros((WINDOWS, LENGTH), np.int64)
        tracemalloc.start()
        measure_ranges(checkpoint, decoder, windows)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < expected < 2.5 * peak

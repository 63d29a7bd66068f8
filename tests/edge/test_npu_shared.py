"""Binaries of two stages and for two SoCs: made, and looked at. The emulator cannot load them (edge.npu.shared)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from converters.errors import BundleError, UnsupportedError
from converters.onnx.npu.config import NPU_STAGES
from edge.npu.binary import binaries_of, read_binary
from edge.npu.compiler import compile_graph
from edge.npu.shared import archived, compile_for_socs, compile_shared
from edge.npu.socs import get_socs
from edge.npu.system import read_contents
from tests.converters import npu_probe_graphs
from tests.converters.npu_support import write_npu
from tests.edge.npu_emulator import needs_emulator

Tiny = Callable[..., Path]
pytestmark = needs_emulator
SOCS = get_socs(["SM8650", "SM8750"])
WEIGHTS = 500_000
"""At least so many bytes do the layers' weights take: what is stored twice shows."""


@pytest.fixture(scope="module")
def variant(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wide enough that weights are most of a binary."""
    folder = tmp_path_factory.mktemp("shared") / "npu"
    write_npu(tiny("phi4", hidden_size=256, intermediate_size=1024), folder)
    assert (folder / "layers.onnx.data").stat().st_size > WEIGHTS
    return folder


def test_both_stages_in_one_binary_hold_their_weights_once(variant: Path, tmp_path: Path) -> None:
    apart = {}
    for stage in NPU_STAGES:
        compile_graph(variant / f"{stage}.onnx", SOCS[0], tmp_path / f"{stage}.onnx")
        apart[stage] = tmp_path / f"{stage}_qnn.bin"
    (tmp_path / "shared").mkdir()
    made = compile_shared([variant / f"{stage}.onnx" for stage in NPU_STAGES], SOCS[0], tmp_path / "shared")
    for stage in NPU_STAGES:
        assert binaries_of(tmp_path / "shared" / f"{stage}.onnx") == [made.binary]
    assert read_binary(made.binary).socs == (("SM8650", 75),)
    contents = read_contents(made.binary)
    each = [read_contents(binary) for binary in apart.values()]
    assert contents.soc_model == SOCS[0].soc_model
    assert sorted(g.name for g in contents.graphs) == sorted(g.name for one in each for g in one.graphs)
    # Both stages take the hidden states, two lengths and the caches of two layers, and give what changes.
    assert {(g.inputs, g.outputs) for g in contents.graphs} == {(7, 5)}
    sizes = [binary.stat().st_size for binary in apart.values()]
    assert sum(sizes) - made.binary.stat().st_size > WEIGHTS
    assert made.peak_bytes > 0


def test_an_archive_holds_a_binary_for_each_soc(variant: Path, tmp_path: Path) -> None:
    made = compile_for_socs(variant / "iterator.onnx", SOCS, tmp_path / "iterator.onnx")
    files = archived(made.binary)
    assert [name for name in files if name.startswith("htp.cache")] == [
        "htp.cache.sm8650.0",
        "htp.cache.sm8750.0",
    ]
    assert read_binary(made.binary).socs == (("SM8650", 75), ("SM8750", 79))
    # Its weights are not in either: both SoCs share them.
    assert max(size for name, size in files.items() if "shared.weights" in name) > WEIGHTS
    with pytest.raises(BundleError, match="no context binary for one SoC"):
        read_contents(made.binary)


def test_a_damaged_binary_is_refused_by_the_reader(variant: Path, tmp_path: Path) -> None:
    compile_graph(variant / "iterator.onnx", SOCS[1], tmp_path / "it.onnx")
    binary = tmp_path / "it_qnn.bin"
    assert read_contents(binary).soc_model == SOCS[1].soc_model
    content = bytearray(binary.read_bytes())
    content[100] ^= 0xFF  # in its own header: what lies behind it no reader looks at
    binary.write_bytes(content)
    with pytest.raises(BundleError, match="no context binary for one SoC"):
        read_contents(binary)


def test_what_the_npu_does_not_take_makes_no_binary(tmp_path: Path) -> None:
    model, _, _ = npu_probe_graphs.left_over("")
    onnx.save(model, tmp_path / "graph.onnx")
    (tmp_path / "made").mkdir()
    with pytest.raises(UnsupportedError, match="refuses it"):
        compile_for_socs(tmp_path / "graph.onnx", SOCS, tmp_path / "made" / "graph.onnx")
    assert not list((tmp_path / "made").iterdir())

"""`edge convert --target android-npu`: bundles with context binaries, the same on every run, every node placed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.decoder import Weight
from converters.errors import UnsupportedError
from converters.onnx.graph import MICROSOFT
from converters.onnx.npu import stages
from edge.benchmarking.traffic import traffic
from edge.bundle import load
from edge.convert import ConvertRequest, convert, plan
from edge.npu.binary import read_binary
from edge.progress import Silent
from edge.report import Request, gather
from edge.verification import verify
from tests.edge.npu_emulator import needs_emulator

pytestmark = needs_emulator
Tiny = Callable[..., Path]


def request(checkpoint: Path, output: Path, **changes: Any) -> ConvertRequest:
    chosen: dict[str, Any] = {"targets": ("android-npu",), "context": 128, "output": output, **changes}
    return ConvertRequest(str(checkpoint), **chosen)


def make(checkpoint: Path, output: Path, **changes: Any) -> Path:
    convert(plan(request(checkpoint, output, **changes)), Silent())
    return output


@pytest.fixture(scope="module")
def bundle(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("npu")
    return make(tiny("phi4-mini"), folder / "b", targets=("android-npu", "cpu"), socs=("SM8650", "sm8750"))


def test_a_bundle_holds_the_graph_and_a_proven_binary_for_each_soc(bundle: Path) -> None:
    made = load(bundle)
    assert [v.name for v in made.variants] == ["npu-int4", "npu-int4-SM8650", "npu-int4-SM8750", "onnx-int4"]
    proof = json.loads((bundle / "proof.json").read_text())
    for name, result in proof["variants"].items():
        assert result["passed"], result["failures"]
        if name.startswith("npu"):
            assert "(emulated NPU)" in result["runtime"]
            # float16 from end to end, as the issue asks; measured 0.9999 and better.
            assert result["fidelity"]["cosine"] >= 0.999
    assert proof["variants"]["npu-int4-SM8650"]["stored"] == {"compiled_from": "npu-int4"}
    for soc, arch in (("SM8650", 75), ("SM8750", 79)):
        for stage in ("context", "iterator"):
            assert read_binary(bundle / f"npu-int4-{soc}" / f"{stage}_qnn.bin").socs == ((soc, arch),)


def test_the_manifest_says_where_every_node_runs(bundle: Path) -> None:
    placement = load(bundle).manifest["placement"]
    assert set(placement) == {"npu-int4-SM8650", "npu-int4-SM8750"}
    for found in placement.values():
        for stage in ("context", "iterator"):
            assert list(found[stage]) == ["QNNExecutionProvider"]
            assert found[stage]["QNNExecutionProvider"]["MatMulNBits"] == 10


def test_the_same_input_gives_the_same_bytes_in_any_place(bundle: Path, tiny: Tiny, tmp_path: Path) -> None:
    """onnxruntime names what it compiles by a hash of the graph's path."""
    again = make(tiny("phi4-mini"), tmp_path / "elsewhere" / "c", targets=("android-npu", "cpu"),
                 socs=("SM8650", "SM8750"))  # fmt: skip
    assert (again / "manifest.json").read_bytes() == (bundle / "manifest.json").read_bytes()


def test_verify_proves_binaries_anew(bundle: Path, tiny: Tiny) -> None:
    found = verify(bundle, str(tiny("phi4-mini")), Silent())
    assert found.ok
    assert found.proof is not None
    assert set(found.proof["variants"]) == {v.name for v in load(bundle).variants}


def test_a_report_reads_what_a_binary_was_compiled_from(bundle: Path, tiny: Tiny, tmp_path: Path) -> None:
    text = tmp_path / "t.txt"
    text.write_text("Words that nobody has read before, and a few more of them. " * 8)
    found = gather(Request(bundle, str(tiny("phi4-mini")), text=text, windows=1), Silent())
    graph, binary = found.variants[:2]
    assert (graph.variant.name, binary.variant.name) == ("npu-int4", "npu-int4-SM8650")
    assert graph.errors is not None
    assert binary.errors is not None
    np.testing.assert_array_equal(graph.errors.layers, binary.errors.layers)
    assert traffic(binary.variant.path) is None


@pytest.fixture
def an_operator_for_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A norm over x + x, in an operator that the NPU does not take: RMSNorm(2 x) is RMSNorm(x)."""
    real = stages.Layers._norm

    def norm(self: Any, weight: Weight, x: str, *, output: str | None = None) -> str:
        if output is None:
            return real(self, weight, x)
        gain = self._half(self._graph.external(self._stored[weight.name].tensors[0]))
        name: str = self._graph.node(
            "SkipSimplifiedLayerNormalization", [x, x, gain], output, domain=MICROSOFT, epsilon=4e-5
        )
        return name

    monkeypatch.setattr(stages.Layers, "_norm", norm)


@pytest.mark.usefixtures("an_operator_for_the_cpu")
@pytest.mark.parametrize("socs", [(), ("SM8650",)])
def test_a_node_on_the_cpu_is_named_and_nothing_is_published(
    socs: tuple[str, ...], tiny: Tiny, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedError, match=r"/hidden\.after \(SkipSimplifiedLayerNormalization\)"):
        make(tiny("phi4"), tmp_path / "b", socs=socs)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("an_operator_for_the_cpu")
@pytest.mark.parametrize("socs", [(), ("SM8650",)])
def test_a_node_on_the_cpu_may_be_allowed(socs: tuple[str, ...], tiny: Tiny, tmp_path: Path) -> None:
    made = load(make(tiny("phi4"), tmp_path / "b", socs=socs, allow_cpu=True, allow_unproven=True))
    proof = json.loads((made.directory / "proof.json").read_text())
    for variant, found in made.manifest["placement"].items():
        assert found["context"]["CPUExecutionProvider"] == {"SkipSimplifiedLayerNormalization": 1}
        # It runs; that the graph is another one than the decoder's shows in the stored constants alone.
        assert proof["variants"][variant]["fidelity"]["cosine"] > 0.999

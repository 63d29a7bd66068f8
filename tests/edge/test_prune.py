"""`edge prune`: checkpoint in, checkpoint out, which converts with a proof; the same run gives the same bytes."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from converters.checkpoint import Checkpoint
from converters.errors import UnsupportedError
from converters.models import describe
from edge.bundle import sha256
from edge.convert import ConvertRequest, convert, plan
from edge.distill import distill
from edge.distilling.plan import DistillRequest, Method
from edge.distilling.plan import plan as plan_distill
from edge.progress import Silent
from edge.prune import SHRINK, PruneRequest, prune
from quant.blocks import INT4, dequantize
from quant.prune.settings import Settings
from quant.prune.units import MATRICES
from quant.rtn import quantize

Tiny = Callable[..., Path]
SHORT = Settings(keep=None, units={}, steps=8, length=32, batch=2, window=2, rate=1e-3)


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("EDGE_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "prune-cache"))


@pytest.fixture
def text(tmp_path: Path) -> Path:
    file = tmp_path / "words.txt"
    file.write_text(" ".join(f"word{i % 97} and {i % 89}" for i in range(300)))
    return file


def proof_of(bundle: Path) -> dict[str, Any]:
    return json.loads((bundle / "proof.json").read_text())


@pytest.mark.parametrize("target", ["cpu", "windows", "android-npu"])
def test_a_model_without_half_of_its_units_is_smaller_and_proven(
    target: str, tiny: Tiny, text: Path, tmp_path: Path
) -> None:
    """LongRoPE, partial rotation, three query heads a group: two of two layers stay, half of all else goes."""
    units = {"groups": 0.5, "heads": 0.67, "neurons": 0.5}
    source, output = tiny("phi4-mini"), tmp_path / "small"
    shrink = prune(PruneRequest(str(source), output, replace(SHORT, units=units), text), Silent())
    with Checkpoint.open(output) as checkpoint, Checkpoint.open(source) as original:
        decoder, whole = describe(checkpoint), describe(original)
    attention = decoder.attention
    assert (attention.heads, attention.kv_heads, attention.head_dim) == (2, 1, 32)
    assert decoder.intermediate_size == 128
    assert shrink["result"]["parameters_before"] == whole.parameters
    assert shrink["result"]["parameters_after"] == decoder.parameters
    assert (output / "model.safetensors").stat().st_size < (source / "model.safetensors").stat().st_size
    convert(plan(ConvertRequest(str(output), (target,), output=tmp_path / "b")), Silent())
    assert proof_of(tmp_path / "b")["passed"]


def test_layers_and_neurons_go_to_llama_cpp_and_heads_do_not(tiny: Tiny, text: Path, tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp")
    source = str(tiny("uneven"))
    for name, units in {"depth": {"layers": 0.67, "neurons": 0.7}, "heads": {"heads": 0.5}}.items():
        prune(PruneRequest(source, tmp_path / name, replace(SHORT, units=units), text), Silent())
    with Checkpoint.open(tmp_path / "depth") as checkpoint:
        decoder = describe(checkpoint)
    assert (len(decoder.layers), decoder.intermediate_size) == (2, 160)
    convert(plan(ConvertRequest(str(tmp_path / "depth"), ("android",), output=tmp_path / "b")), Silent())
    assert proof_of(tmp_path / "b")["passed"]
    with pytest.raises(UnsupportedError, match=r"llama\.cpp wants the hidden size"):
        plan(ConvertRequest(str(tmp_path / "heads"), ("android",), output=tmp_path / "c"))


@pytest.mark.parametrize("precision", ["int4", "f32"])
def test_factors_are_proven_on_the_cpu_and_refused_elsewhere(
    precision: str, tiny: Tiny, text: Path, tmp_path: Path
) -> None:
    settings = replace(SHORT, method="losparse", low_rank=0.2, keep=0.1)
    prune(PruneRequest(str(tiny("phi4-mini")), tmp_path / "thin", settings, text), Silent())
    request = ConvertRequest(str(tmp_path / "thin"), ("cpu",), output=tmp_path / "b", precision=precision)
    convert(plan(request), Silent())
    proof = proof_of(tmp_path / "b")
    assert proof["passed"]
    if precision == "f32":
        # The same sums in another order.
        assert proof["variants"]["onnx-f32"]["fidelity"]["kl_mean"] < 1e-9
    graph = onnx.load(tmp_path / "b" / f"onnx-{precision}" / "model.onnx", load_external_data=False).graph
    tables = [t for t in graph.initializer if t.name.endswith(".sparse.rows")]
    layers = ("attention.qkv", "attention.o", "mlp.gate_up", "mlp.down")
    assert [t.name for t in tables[:4]] == [f"layers.0.{name}.sparse.rows" for name in layers]
    assert [node.op_type for node in graph.node].count("GroupQueryAttention") == 2
    for target in ("android", "android-npu", "windows"):
        with pytest.raises(UnsupportedError, match="low-rank factors in layer 0"):
            plan(ConvertRequest(str(tmp_path / "thin"), (target,)))


@pytest.mark.parametrize("method", ["kd", "ted"])
def test_a_model_in_factors_learns_from_the_dense_one(
    method: Method, tiny: Tiny, text: Path, tmp_path: Path
) -> None:
    """The paper's second half: the pruned model is the student of the one that it was made from. It stays in factors,
    with the same rows, and converts; interrupted, it ends with the same bits."""
    source, thin = tiny("phi4-mini"), tmp_path / "thin"
    settings = replace(SHORT, method="losparse", low_rank=0.2, keep=0.1)
    prune(PruneRequest(str(source), thin, settings, text), Silent())

    def taught(name: str, progress: Silent) -> Path:
        output = tmp_path / name
        request = DistillRequest(
            str(source), text, output, method=method, student=thin, steps=6, length=32, batch=2, rate=1e-3
        )
        distill(plan_distill(request), progress)
        return output

    whole = taught("whole", Silent())
    with pytest.raises(KeyboardInterrupt):
        taught("parts", Interrupted(4))
    parts = taught("parts", Silent())
    for name in ("model.safetensors", "config.json", SHRINK):
        assert sha256(whole / name) == sha256(parts / name), name
    with Checkpoint.open(thin) as before, Checkpoint.open(whole) as after:
        assert before.config == after.config
        assert before.tensors.keys() == after.tensors.keys()
        for name, info in before.tensors.items():
            assert (info.shape, info.dtype) == (after.tensors[name].shape, after.tensors[name].dtype)
            if name.endswith(("_rows", "low_rank_a", "low_rank_b")):
                same = np.array_equal(before.read(name), after.read(name))
                assert same == name.endswith("_rows"), name
    record = json.loads((whole / SHRINK).read_text())
    assert record["student"]["before"] == json.loads((thin / SHRINK).read_text())
    convert(plan(ConvertRequest(str(whole), ("cpu",), output=tmp_path / "b", precision="f32")), Silent())
    assert proof_of(tmp_path / "b")["passed"]


def test_zeros_are_exact_in_number_and_survive_quantization(tiny: Tiny, text: Path, tmp_path: Path) -> None:
    source, output = tiny("odd-heads"), tmp_path / "sparse"
    shrink = prune(PruneRequest(str(source), output, replace(SHORT, keep=0.3), text), Silent())
    with Checkpoint.open(output) as checkpoint:
        matrices = {n: checkpoint.read(n) for n in checkpoint.tensors if n.endswith(MATRICES)}
        weights = [w for w in describe(checkpoint).layers[0].weights() if w.is_matrix]
        rows = {w.name: checkpoint.weight_rows(w, 0, w.rows).astype(np.float32) for w in weights}
    total = sum(m.size for m in matrices.values())
    zeros = sum(int((m == 0).sum()) for m in matrices.values())
    assert zeros == total - round(0.3 * total) == shrink["result"]["zeros"]
    for values in rows.values():
        if values.shape[1] % 32 == 0:
            assert (dequantize(quantize(values, INT4))[values == 0] == 0).all()
    convert(plan(ConvertRequest(str(output), ("cpu",), output=tmp_path / "b", precision="f32")), Silent())
    assert proof_of(tmp_path / "b")["passed"]


class Interrupted(Silent):
    """Ctrl-C during a step."""

    def __init__(self, after: int) -> None:
        self.left = after

    def advance(self, n: int) -> None:
        self.left -= n
        if self.left == 0:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(
    "what",
    [
        {"keep": 0.4},
        {"units": {"neurons": 0.5, "groups": 0.5}},
        {"method": "losparse", "low_rank": 0.2, "keep": 0.1},
    ],
    ids=["weights", "units", "factors"],
)
def test_an_interrupted_run_ends_with_the_bytes_of_a_whole_one(
    what: dict[str, Any], tiny: Tiny, text: Path, tmp_path: Path
) -> None:
    """Stopped while pruning, and again in the last phase, in which what is pruned is held."""
    settings = replace(SHORT, steps=12, seed=7, **what)
    source = str(tiny("phi4"))
    first, second = (PruneRequest(source, tmp_path / name, settings, text) for name in ("whole", "parts"))
    prune(first, Silent())
    for after in (5, 6):
        with pytest.raises(KeyboardInterrupt):
            prune(second, Interrupted(after))
        assert not second.output.exists()
    prune(second, Silent())
    for name in ("model.safetensors", "config.json", SHRINK):
        assert sha256(first.output / name) == sha256(second.output / name), name


def test_the_record_names_inputs_and_the_step_before(tiny: Tiny, text: Path, tmp_path: Path) -> None:
    source = tiny("phi4")
    first = prune(
        PruneRequest(str(source), tmp_path / "a", replace(SHORT, units={"neurons": 0.5}), text), Silent()
    )
    assert first["made_from"]["sha256"]["model.safetensors"] == sha256(source / "model.safetensors")
    assert first["settings"]["seed"] == 0
    second = prune(
        PruneRequest(str(tmp_path / "a"), tmp_path / "b", replace(SHORT, keep=0.5), text), Silent()
    )
    assert second["before"] == json.loads((tmp_path / "a" / SHRINK).read_text())
    assert second["result"]["loss_before"] == pytest.approx(first["result"]["loss_after"], rel=1e-5)

"""Phi-3.5-MoE through `edge convert`: one pass, two formats, and a label on the one that is not the same model."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.decoder import Decoder, Experts, Layer
from converters.errors import ProofError
from converters.gguf import phimoe
from edge import convert as convert_module
from edge.convert import ConvertRequest, convert, plan
from edge.progress import Silent
from edge.report import Request, gather
from edge.reporting.page import render
from edge.verification import verify
from tests.edge.wrong_wiring import refused

Tiny = Callable[..., Path]


def make(checkpoint: Path, output: Path, *targets: str, **options: Any) -> dict[str, Any]:
    """Convert and return the manifest."""
    convert(plan(ConvertRequest(str(checkpoint), targets, output=output, **options)), Silent())
    manifest: dict[str, Any] = json.loads((output / "manifest.json").read_text())
    return manifest


def test_only_the_gguf_is_labelled_and_its_kl_stands_in_the_proof(tiny: Tiny, tmp_path: Path) -> None:
    checkpoint = tiny("phi3.5-moe")
    manifest = make(checkpoint, tmp_path / "b", "cpu", "android", threads=2)
    assert manifest["proof"] == "passed"
    labels = {v["format"]: v.get("approximate") for v in manifest["variants"]}
    assert labels == {"onnx": None, "gguf": phimoe.WHY}
    proof = json.loads((tmp_path / "b" / "proof.json").read_text())["variants"]
    assert "approximation" not in proof["onnx-int4"]
    # Rounded to 4 bits or not, nothing before a router is rounded anew in the ONNX graph.
    assert proof["onnx-int4"]["fidelity"]["kl_mean"] < 1e-3
    assert proof["gguf-int4"]["approximate"] == phimoe.WHY
    assert 0.001 < proof["gguf-int4"]["approximation"]["kl_mean"] < 0.1
    assert verify(tmp_path / "b", str(checkpoint), Silent()).ok
    assert make(checkpoint, tmp_path / "again", "cpu", "android", threads=1) == manifest


def test_without_its_label_the_same_file_fails(tiny: Tiny, tmp_path: Path) -> None:
    """In float32 llama.cpp computes the rewriting to 1e-12; against the model itself it is off by 0.03 nats, three
    hundred times what is allowed to a variant that does not say so."""
    checkpoint, output = tiny("phi3.5-moe"), tmp_path / "b"
    manifest = make(checkpoint, output, "android", precision="f32")
    proof = json.loads((output / "proof.json").read_text())["variants"]["gguf-f32"]
    assert proof["fidelity"]["kl_mean"] < 1e-9
    assert verify(output, str(checkpoint), Silent()).ok
    del manifest["variants"][0]["approximate"]
    (output / "manifest.json").write_text(json.dumps(manifest))
    found = verify(output, str(checkpoint), Silent())
    assert found.proof is not None
    [failure] = [f for f in found.proof["variants"]["gguf-f32"]["failures"] if "KL" in f]
    assert failure.startswith("quality: mean KL 0.0")


def _mlps(change: Callable[[Experts], Experts]) -> Callable[[Decoder], Decoder]:
    def layer(each: Layer) -> Layer:
        assert isinstance(each.mlp, Experts)
        return dataclasses.replace(each, mlp=change(each.mlp))

    return lambda d: dataclasses.replace(d, layers=tuple(layer(each) for each in d.layers))


def gate_is_up(mlp: Experts) -> Experts:
    swapped = tuple(dataclasses.replace(e, gate=e.up, up=e.gate) for e in mlp.experts)
    return dataclasses.replace(mlp, experts=swapped)


def experts_in_another_order(mlp: Experts) -> Experts:
    return dataclasses.replace(mlp, experts=(*mlp.experts[1:], mlp.experts[0]))


def wider_tie(mlp: Experts) -> Experts:
    return dataclasses.replace(mlp, tolerance=0.03)


@pytest.mark.parametrize(
    ("target", "corrupt", "said"),
    [
        ("cpu", _mlps(gate_is_up), r"layers\.0\.moe\.0\.gate: row"),
        ("android", _mlps(gate_is_up), r"layers\.0\.moe\.0\.gate: row"),
        ("cpu", _mlps(experts_in_another_order), r"layers\.0\.moe\.0\.gate: row"),
        ("android", _mlps(experts_in_another_order), r"layers\.0\.moe\.0\.gate: row"),
        ("cpu", _mlps(wider_tie), r"moe\.tolerance is 0\.03"),
    ],
)
def test_wrong_wiring_is_caught(
    tiny: Tiny,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    target: str,
    corrupt: Callable[[Decoder], Decoder],
    said: str,
) -> None:
    refused(make, tiny("moe-8"), tmp_path, monkeypatch, target, corrupt, said)


def test_a_gguf_that_was_not_rewritten_is_caught(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convert_module, "rewriting", lambda *_: None)
    with pytest.raises(ProofError, match=r"embedding: row 0"):
        make(tiny("moe-8"), tmp_path / "b", "android")


def test_a_report_of_experts_tells_what_rounding_lost_and_what_is_approximate(
    tiny: Tiny, tmp_path: Path
) -> None:
    """The gates, ups and downs of all experts of a layer are one figure each. A GGUF is compared with the rewritten
    weights that it was made of: its errors are those of 4 bits, though its downs are twice the checkpoint's."""
    make(tiny("moe-8"), tmp_path / "b", "cpu", "android", context=256)
    found = gather(Request(tmp_path / "b", str(tiny("moe-8")), windows=1, threads=1), Silent())
    for artifact in found.variants:
        assert artifact.bits is not None
        assert artifact.errors is not None
        np.testing.assert_array_equal(artifact.bits, [[8.5] * 4 + [4.5] * 3] * 3)
        assert ((artifact.errors.layers[:, 4:] > 0.03) & (artifact.errors.layers[:, 4:] < 0.15)).all()
        assert (artifact.errors.layers[:, :4] < 0.01).all()
        assert (artifact.errors.hidden < 0.5).all()
    assert "gguf-int4 is approximate" in render(found)

"""From a checkpoint to a proven bundle: one pass, reproducible, verified, and refused when it is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from converters.checkpoint import Checkpoint
from converters.errors import BundleError, ProofError, UnsupportedError
from edge import bundle as bundles
from edge import streaming
from edge.convert import ConvertRequest, convert, plan
from edge.progress import Silent
from edge.verification import verify
from quant.recipe import Recipe

Tiny = Callable[..., Path]


def make(checkpoint: Path, output: Path, **options: Any) -> dict[str, Any]:
    """Convert and return the manifest."""
    targets = options.pop("targets", ("android", "cpu"))
    convert(plan(ConvertRequest(str(checkpoint), targets, output=output, **options)), Silent())
    manifest: dict[str, Any] = json.loads((output / "manifest.json").read_text())
    return manifest


def test_one_pass_reads_every_row_once_and_writes_both_formats(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[tuple[dict[str, int], dict[str, int]]] = []
    run = streaming.run

    def watched(checkpoint: Checkpoint, *args: Any, **kwargs: Any) -> int:
        read = run(checkpoint, *args, **kwargs)
        rows = {name: tensor.shape[0] for name, tensor in checkpoint.tensors.items()}
        counts.append((dict(checkpoint.rows_read), rows))
        return read

    monkeypatch.setattr(streaming, "run", watched)
    manifest = make(tiny("phi4-mini"), tmp_path / "b", proof=False)
    [(read, rows)] = counts
    assert read == rows
    assert [v["format"] for v in manifest["variants"]] == ["gguf", "onnx"]
    assert (tmp_path / "b" / "onnx-int4" / "genai_config.json").is_file()
    assert len(list((tmp_path / "b").glob("*.gguf"))) == 1
    assert manifest["proof"] == "unproven: --no-proof"


def test_same_input_same_bytes_with_any_number_of_threads(tiny: Tiny, tmp_path: Path) -> None:
    checkpoint = tiny("phi3.5-mini")
    manifests = [make(checkpoint, tmp_path / str(i), threads=n) for i, n in enumerate((1, 2, 2))]
    assert manifests[0]["files"]["proof.json"]
    assert manifests[0] == manifests[1] == manifests[2]
    texts = {(tmp_path / str(i) / "manifest.json").read_bytes() for i in range(3)}
    assert len(texts) == 1
    assert str(tmp_path).encode() not in texts.pop(), "a path of this machine in the manifest"


@pytest.mark.parametrize("precision", ["int4", "int8", "f16", "bf16", "f32"])
def test_every_precision_is_proven_on_both_targets(tiny: Tiny, tmp_path: Path, precision: str) -> None:
    checkpoint = tiny("phi4-mini")
    manifest = make(checkpoint, tmp_path / "b", precision=precision)
    proof = json.loads((tmp_path / "b" / "proof.json").read_text())
    assert manifest["proof"] == "passed"
    assert set(proof["variants"]) == {f"gguf-{precision}", f"onnx-{precision}"}
    for variant in proof["variants"].values():
        assert variant["stored"]["values"] == manifest["model"]["parameters"]
        assert variant["fidelity"]["positions"] == proof["tokens"] >= 64


def test_verify_finds_every_kind_of_damage_and_proves_anew(tiny: Tiny, tmp_path: Path) -> None:
    checkpoint, output = tiny("phi4"), tmp_path / "b"
    make(checkpoint, output, targets=("cpu",))
    again = verify(output, str(checkpoint), Silent())
    assert again.ok
    assert again.proof == json.loads((output / "proof.json").read_text())

    data = output / "onnx-int4" / "model.onnx.data"
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    (output / "extra.txt").write_text("x")
    (output / "tokenizer.json").unlink()
    damage = verify(output, str(checkpoint), Silent())
    assert not damage.ok
    assert damage.proof is None, "a damaged bundle must not be run"
    assert len(damage.damage) == 3
    for part in ("model.onnx.data has SHA-256", "extra.txt is not in", "tokenizer.json is missing"):
        assert any(part in line for line in damage.damage)


def test_a_bundle_of_another_checkpoint_fails_the_proof(tiny: Tiny, tmp_path: Path) -> None:
    make(tiny("phi4"), tmp_path / "b", targets=("cpu",))
    other = tmp_path / "other"
    from benchmarks.random_checkpoint import SHAPES, write_checkpoint
    from benchmarks.shapes import TOKENIZERS

    write_checkpoint(other, SHAPES["phi4"], seed=7, tokenizer=TOKENIZERS["phi4"])
    result = verify(tmp_path / "b", str(other), Silent())
    assert not result.ok
    assert result.proof is not None
    [variant] = result.proof["variants"].values()
    assert variant["stored"]["faults"]
    assert variant["quality"]["kl_mean"] > variant["limits"]["quality_kl_mean"]


def test_a_failed_proof_publishes_nothing_unless_allowed(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge import targets

    strict = targets.Limits(fidelity_kl_mean=0.0, fidelity_top1=1.0, quality_kl_mean=0.0, quality_top1=1.0)
    real = targets.get_target("cpu")
    impossible = targets.Target(**{**vars(real), "limits": {"int4": strict}})
    monkeypatch.setattr("edge.plan.get_target", lambda name: impossible)
    with pytest.raises(ProofError, match="nothing was published"):
        make(tiny("phi4"), tmp_path / "b", targets=("cpu",))
    assert list(tmp_path.iterdir()) == []
    manifest = make(tiny("phi4"), tmp_path / "b", targets=("cpu",), allow_unproven=True)
    assert manifest["proof"] == "unproven: failed"


@pytest.mark.parametrize(
    ("shape", "target", "limit", "why"),
    [
        ("phi3-mini-4k", "android", 2047, "window"),
        ("phi4-mini", "android", 4096, "4096"),
        ("phi4-mini", "cpu", 8192, None),
        ("phi3-mini-4k", "cpu", 4096, "own limit"),
    ],
)
def test_context_is_capped_where_the_runtime_would_go_wrong(
    tiny: Tiny, shape: str, target: str, limit: int, why: str | None
) -> None:
    [variant] = plan(ConvertRequest(str(tiny(shape)), (target,), context=8192)).variants
    assert variant.context_length == limit
    assert (why is None) == (variant.context_reason is None)
    if why:
        assert why in str(variant.context_reason)


def test_plan_knows_the_size_before_anything_is_written(tiny: Tiny, tmp_path: Path) -> None:
    planned = plan(
        ConvertRequest(str(tiny("phi4-mini")), ("android", "cpu"), output=tmp_path / "b", proof=False)
    )
    assert not (tmp_path / "b").exists()
    report = convert(planned, Silent())
    for expected, found in zip(planned.variants, report.variants, strict=True):
        # Tensor data are exact; 2 MiB are for vocabulary, graph and tokenizer files, which are estimated.
        assert found["disk_bytes"] - 65536 <= expected.disk_bytes <= found["disk_bytes"] + (2 << 20)


def test_a_directory_that_is_no_bundle_is_never_overwritten(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(BundleError, match="not a bundle"):
        make(tiny("phi4"), tmp_path, proof=False)
    assert [p.name for p in tmp_path.iterdir()] == ["precious.txt"]


def test_an_old_bundle_is_replaced_whole(tiny: Tiny, tmp_path: Path) -> None:
    make(tiny("phi4"), tmp_path / "b", proof=False)
    manifest = make(tiny("phi4"), tmp_path / "b", targets=("cpu",), proof=False)
    assert [v["format"] for v in manifest["variants"]] == ["onnx"]
    assert not list((tmp_path / "b").glob("*.gguf"))
    assert [p.name for p in tmp_path.iterdir()] == ["b"]
    assert bundles.damage(bundles.load(tmp_path / "b")) == []


TWO_TARGETS = """
[targets.phone2]
title = "Small phone"
format = "gguf"
precision = "int4"
context_length = 512
memory_mb = 1024
proven = "nowhere"
[targets.phone2.limits.int4]
fidelity_kl_mean = 1.0
fidelity_top1 = 0.0
quality_kl_mean = 0.000001
quality_top1 = 0.0
"""


def test_targets_that_differ_in_context_get_artifacts_of_their_own(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("edge.toml").write_text(TWO_TARGETS)
    manifest = make(tiny("phi4"), tmp_path / "b", targets=("android", "phone2"), proof=False)
    assert [(v["name"], v["context_length"]) for v in manifest["variants"]] == [
        ("gguf-int4-4096", 4096),
        ("gguf-int4-512", 512),
    ]
    assert len(list((tmp_path / "b").glob("*.gguf"))) == 2


@pytest.mark.parametrize("targets", [("android", "phone2"), ("phone2", "android")])
def test_an_artifact_of_two_targets_must_satisfy_both(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, targets: tuple[str, str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("edge.toml").write_text(TWO_TARGETS)
    with pytest.raises(ProofError, match="quality"):
        make(tiny("phi4"), tmp_path / "b", targets=targets, context=256)


def test_a_recipe_is_judged_by_what_it_stores(tiny: Tiny, tmp_path: Path) -> None:
    recipe = tmp_path / "r.json"
    recipe.write_text(json.dumps(Recipe.preset("f32").to_data()))
    [variant] = plan(ConvertRequest(str(tiny("phi4")), ("cpu",), recipe=recipe)).variants
    assert (variant.name, variant.precision) == ("onnx-f32", "f32")


def test_unknown_target_names_the_known_ones(tiny: Tiny) -> None:
    with pytest.raises(UnsupportedError, match="known: android, android-npu, cpu, windows"):
        plan(ConvertRequest(str(tiny("phi4")), ("toaster",)))

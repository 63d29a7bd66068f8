"""Models that see and hear through `edge convert`: proven, reproducible, one base for all decoders, verified anew."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from edge import bundle as bundles
from edge import cli
from edge.progress import Silent
from edge.runtimes import open_runtime
from edge.runtimes.protocol import Adaptable
from edge.verification import verify
from tests.edge.multimodal_support import VOCABULARY, make

TinyMultimodal = Callable[..., Path]
DECODERS = ("model.onnx", "model-vision.onnx", "model-speech.onnx")


@pytest.fixture(scope="module")
def small(tiny_multimodal: TinyMultimodal) -> Path:
    return tiny_multimodal("phi4_multimodal", vocab_size=VOCABULARY)


@pytest.fixture(scope="module")
def bundle(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """At the default precision, with its proof."""
    return make(small, tmp_path_factory.mktemp("bundle") / "b", "cpu", "android", proof=True, context=512)


def proof_of(bundle: Path) -> dict[str, Any]:
    proof: dict[str, Any] = json.loads((bundle / "proof.json").read_text())
    assert proof["passed"]
    return proof["variants"]  # type: ignore[no-any-return]


def data_files(variant: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in variant.glob("*.onnx.data")}


def check_both_engines(output: Path) -> None:
    """All of it for onnxruntime; its text, with both adapters as files, for llama.cpp."""
    found = proof_of(output)
    seen = found["multimodal-int4"]
    assert set(seen["prompts"]) == {"image", "audio", "image and audio"}
    for prompt in seen["prompts"].values():
        assert prompt["fidelity"]["kl_mean"] < 0.02
        assert prompt["quality"]["kl_mean"] < 0.2
    for encoder in ("image", "audio"):
        assert (
            1e-4 < seen["encoders"][encoder]["relative_error"] < 0.05
        )  # of int8 weights; float32 ones give 5e-7
        assert seen["encoders"][encoder]["worst_cosine"] > 0.995
    for adapter in found["gguf-int4"]["adapters"].values():
        assert adapter["effect"]["kl_mean"] > 100 * adapter["fidelity"]["kl_mean"]
    runtime = open_runtime(next(output.glob("*.gguf")), context_length=64)
    assert isinstance(runtime, Adaptable)
    assert runtime.adapters == ("speech", "vision")
    runtime.close()


def test_a_bundle_for_both_engines_is_proven(bundle: Path) -> None:
    check_both_engines(bundle)


@pytest.mark.slow
def test_the_original_layout_is_proven(tiny_multimodal: TinyMultimodal, tmp_path: Path) -> None:
    """Its vocabulary is the true one, and the references take a minute of it."""
    output = make(tiny_multimodal("phi4mm"), tmp_path / "b", "cpu", "android", proof=True, context=512)
    check_both_engines(output)


def test_both_layouts_become_the_same_bytes(tiny_multimodal: TinyMultimodal, tmp_path: Path) -> None:
    layouts = ("phi4mm", "phi4_multimodal")
    original, native = (make(tiny_multimodal(name), tmp_path / name, context=512) for name in layouts)
    made = [data_files(each / "multimodal-int4") for each in (original, native)]
    assert made[0] == made[1]


def test_phi3_vision_is_proven_with_its_image(tiny_multimodal: TinyMultimodal, tmp_path: Path) -> None:
    found = proof_of(make(tiny_multimodal("phi3_v"), tmp_path / "b", proof=True, context=512))
    (variant,) = found.values()
    assert set(variant["prompts"]) == set(variant["encoders"]) == {"image"}
    assert not list((tmp_path / "b" / "multimodal-int4").glob("adapter-*"))


def test_the_same_bytes_twice(small: Path, bundle: Path, tmp_path: Path) -> None:
    """All of the bundle: the proof's figures and the manifest too."""
    again = make(small, tmp_path / "b", "cpu", "android", proof=True, context=512, threads=1)
    files = bundles.list_files(bundle)
    assert bundles.list_files(again) == files
    assert [name for name in files if (bundle / name).read_bytes() != (again / name).read_bytes()] == []


def _places(graph: Path) -> dict[str, tuple[str, str, str]]:
    """(file, offset, length) of every external tensor by name."""
    loaded = onnx.load(str(graph), load_external_data=False).graph.initializer
    external = {t.name: {e.key: e.value for e in t.external_data} for t in loaded if t.external_data}
    return {name: (e["location"], e["offset"], e["length"]) for name, e in external.items()}


def test_one_base_for_three_decoders(bundle: Path) -> None:
    variant = bundle / "multimodal-int4"
    text, vision, speech = (_places(variant / name) for name in DECODERS)
    base = {place for place in text.values() if place[0] == "model.onnx.data"}
    assert base
    for name, graph in (("vision", vision), ("speech", speech)):
        assert base <= set(graph.values()), "a decoder with an adapter leaves a tensor of the base out"
        own = set(graph.values()) - base
        assert {file for file, _, _ in own} == {f"adapter-{name}.onnx.data"}
    # Nothing in the base's file lies in another: what the adapters add is less than a tenth of it here.
    assert set(data_files(variant)) == {
        "model.onnx.data", "adapter-vision.onnx.data", "adapter-speech.onnx.data", "vision.onnx.data",
        "speech.onnx.data",
    }  # fmt: skip
    (embedded,) = {file for file, _, _ in _places(variant / "embedding.onnx").values()}
    assert embedded == "model.onnx.data"


def hash_anew(bundle: Path) -> None:
    """As if what was damaged had been published."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["files"] = bundles.hash_files(bundle, lambda n: None)
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def test_a_flipped_byte_is_found_by_the_proof_itself(small: Path, bundle: Path, tmp_path: Path) -> None:
    """Hashes that were made anew after the damage hide it from them, and not from the proof."""
    copy = shutil.copytree(bundle, tmp_path / "b")
    assert not verify(copy, None, Silent()).damage
    names = ("adapter-vision.onnx.data", "vision.onnx.data", "speech.onnx.data")
    for name in names:
        file = copy / "multimodal-int4" / name
        data = bytearray(file.read_bytes())
        data[0] ^= 0x40
        file.write_bytes(data)
    assert len(verify(copy, str(small), Silent()).damage) == len(names)
    hash_anew(copy)
    found = verify(copy, str(small), Silent())
    assert not found.damage
    assert found.proof is not None
    failures = " ".join(found.proof["variants"]["multimodal-int4"]["failures"])
    for part in ("vision:model.layers.0.", "vision.patch:", "speech.mean:"):
        assert part in failures, failures


def test_an_encoder_that_nothing_loads_and_adapters_that_are_swapped(
    small: Path, bundle: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(bundle, tmp_path / "b")
    variant = copy / "multimodal-int4"
    (variant / "vision.onnx").write_bytes(b"\x08")
    (variant / "model-vision.onnx").replace(variant / "model-speech.onnx")
    hash_anew(copy)
    found = verify(copy, str(small), Silent())
    assert found.proof is not None
    failures = found.proof["variants"]["multimodal-int4"]["failures"]
    assert any(failure.startswith("image encoder: ") for failure in failures)
    assert any(failure.startswith("audio: fidelity: mean KL") for failure in failures)
    assert found.proof["variants"]["gguf-int4"]["passed"]


def test_a_context_too_short_for_the_picture_leaves_it_out(small: Path, tmp_path: Path) -> None:
    """453 tokens are it, 38 the recording."""
    found = proof_of(make(small, tmp_path / "b", proof=True, context=128))["multimodal-int4"]
    assert set(found["encoders"]) == {"image", "audio"}
    assert {name for name, prompt in found["prompts"].items() if "fidelity" in prompt} == {"audio"}


def test_the_other_commands_take_it(
    small: Path, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def edge(*words: str | Path) -> str:
        assert cli.main([str(word) for word in words]) == 0
        return capsys.readouterr().out

    described = json.loads(edge("inspect", small, "--json"))
    assert described["convertible"]["ok"]
    inspected = json.loads(edge("inspect", bundle, "--json"))
    assert inspected["kind"] == "bundle"
    # Random prompts hold no place of an image, which would stand for nothing.
    figures = ["--prompts", "200", "--depths", "0", "--runs", "1", "--tokens", "2"]
    edge("bench", bundle, "--variant", "multimodal-int4", "--threads", "1", *figures)
    edge("report", bundle, "--against", small, "-o", tmp_path / "report.html")
    assert "multimodal-int4" in (tmp_path / "report.html").read_text()


def test_verify_proves_it_anew(small: Path, bundle: Path) -> None:
    found = verify(bundle, str(small), Silent())
    assert found.ok
    assert found.proof == json.loads((bundle / "proof.json").read_text())

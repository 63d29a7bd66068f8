"""What a model takes of a device: the formulas held against real engines, and the table of phones."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.engine_peak import peak
from converters.checkpoint import Checkpoint
from converters.decoder import Decoder
from converters.models import describe
from edge.cli import main
from edge.convert import convert
from edge.engine_settings import EngineSettings
from edge.fit import Memory, device_memory, largest_context
from edge.fitting.files import artifact_files
from edge.fitting.phones import load_phones, verdict
from edge.plan import plan
from edge.planned import ConvertRequest
from edge.progress import Silent
from quant.recipe import Precision, Recipe

Tiny = Callable[..., Path]
FORMATS = ("onnx", "gguf")


def described(directory: Path) -> Decoder:
    with Checkpoint.open(directory) as checkpoint:
        return describe(checkpoint)


@pytest.fixture
def decoder(tiny: Tiny) -> Decoder:
    return described(tiny("phi4"))


@pytest.mark.parametrize("target", ["cpu", "android"])
def test_the_engine_takes_what_is_predicted(tiny: Tiny, tmp_path: Path, target: str) -> None:
    """Of a model whose weights, cache and workspace outweigh the engine itself. 10 %: which kernels an engine
    chooses, and so what they copy, differs between processors; `python -m benchmarks.fit` holds 5 % here."""
    sizes = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 10}
    heads = {"num_attention_heads": 8, "num_key_value_heads": 8}
    checkpoint = tiny("phi4", **sizes, **heads, vocab_size=4096)
    request = ConvertRequest(str(checkpoint), (target,), context=1024, output=tmp_path / "b", proof=False)
    planned = plan(request)
    convert(planned, Silent())
    [variant] = planned.variants
    measured = peak(tmp_path / "b" / variant.relative_path, 1024)
    assert abs(variant.memory.total / measured - 1) < 0.1
    assert variant.memory.runtime < measured / 2


def test_an_artifacts_files_have_the_planned_sizes(tiny: Tiny, tmp_path: Path) -> None:
    checkpoint = tiny("phi4-mini")
    request = ConvertRequest(str(checkpoint), ("cpu", "android"), output=tmp_path / "b", proof=False)
    planned = plan(request)
    convert(planned, Silent())
    for variant in planned.variants:
        for path, size in artifact_files(variant, planned.decoder, checkpoint).items():
            actual = (tmp_path / "b" / path).stat().st_size
            # A GGUF's header and vocabulary are given a MiB and 50 bytes a token.
            slack = (1 << 20) + 50 * planned.decoder.vocab_size if path.endswith(".gguf") else 0
            assert actual <= size <= actual + slack, path


@pytest.mark.parametrize("format_name", FORMATS)
def test_memory_grows_with_context_and_bits(decoder: Decoder, format_name: str) -> None:
    # With its interleaved copy llama.cpp's int4 takes more than int8, which has none.
    settings = EngineSettings(repack=False)

    def total(precision: Precision, context: int, filled: int | None = None) -> int:
        recipe = Recipe.preset(precision)
        return device_memory(format_name, decoder, recipe, context, filled=filled, settings=settings).total

    assert total("int4", 256) < total("int4", 1024) < total("int4", 4096)
    assert total("int4", 4096, filled=256) < total("int4", 4096)
    assert total("int4", 1024) < total("int8", 1024) < total("f16", 1024)


@pytest.mark.parametrize("format_name", FORMATS)
def test_the_largest_context_fits_and_one_token_more_does_not(decoder: Decoder, format_name: str) -> None:
    recipe = Recipe.preset("int4")
    usable = device_memory(format_name, decoder, recipe, 2048).total
    found = largest_context(format_name, decoder, recipe, 8192, usable)
    assert 2048 <= found < 8192
    assert device_memory(format_name, decoder, recipe, found).total <= usable
    assert device_memory(format_name, decoder, recipe, found + 1).total > usable
    assert largest_context(format_name, decoder, recipe, 8192, 1 << 40) == 8192
    assert largest_context(format_name, decoder, recipe, 8192, 1 << 20) == 0


def test_settings_count(decoder: Decoder) -> None:
    """A smaller batch takes less workspace, a quantized cache 34/64 of the float16 one, no repacking no copies;
    without flash attention a batch has its scores of all heads in float32."""
    recipe, attention = Recipe.preset("int4"), decoder.attention
    usual = device_memory("gguf", decoder, recipe, 2048)
    assert device_memory("gguf", decoder, recipe, 2048, settings=EngineSettings(batch=64)).total < usual.total
    small = device_memory("gguf", decoder, recipe, 2048, settings=EngineSettings(kv_type="q8_0"))
    assert small.kv_cache * 64 == usual.kv_cache * 34
    plain = device_memory("gguf", decoder, recipe, 2048, settings=EngineSettings(repack=False))
    assert plain.weights == plain.file_backed < usual.weights
    scores = device_memory("gguf", decoder, recipe, 2048, settings=EngineSettings(flash_attention=False))
    assert scores.workspace - usual.workspace == 4 * attention.heads * 512 * 2048


def test_arm_kernels_copy_int8_too(tiny: Tiny) -> None:
    """llama.cpp interleaves Q8_0 on arm64; the tied embedding is then there twice."""
    decoder, recipe = described(tiny("phi4-mini")), Recipe.preset("int8")
    x86 = device_memory("gguf", decoder, recipe, 512)
    arm = device_memory("gguf", decoder, recipe, 512, cpu="arm64")
    assert x86.file_backed == x86.weights
    matrices = sum(w.shape[0] * w.shape[1] for w in decoder.weights() if w.is_matrix)
    assert arm.weights - x86.weights == matrices * 34 // 32


def test_verdicts() -> None:
    memory = Memory(weights=600, kv_cache=100, workspace=200, runtime=100, file_backed=300)
    assert [verdict(memory, usable) for usable in (1000, 999, 700, 699)] == ["fits", "tight", "tight", "no"]


def test_every_phone_names_its_source() -> None:
    phones = load_phones()
    assert len(phones) >= 12
    assert [p.usable for p in phones] == sorted(p.usable for p in phones)
    for phone in phones:
        assert 0 < phone.share < 0.7
        assert 2020 <= phone.year <= 2026
        assert "." in phone.source.split(",")[0]


def test_the_command_tells_every_variant_and_phone(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    model = str(tiny("phi4"))
    assert main(["targets", "--fit", model, "--context", "512", "--precision", "int8", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {v["name"] for v in found["variants"]} == {"onnx-int8", "gguf-int8", "npu-int8"}
    for variant in found["variants"]:
        parts = variant["device_memory"]
        assert parts["total"] == sum(parts[k] for k in ("weights", "kv_cache", "workspace", "runtime"))
        assert len(variant["phones"]) == len(load_phones())
        without = {"no NPU"} if variant["format"] == "npu" else set()
        assert {phone["verdict"] for phone in variant["phones"]} == {"fits", *without}
        assert variant["context_length"] == 512
    assert main(["targets", "--fit", model, "--precision", "f32", "--json"]) == 0
    names = {v["name"] for v in json.loads(capsys.readouterr().out)["variants"]}
    assert names == {"onnx-f32", "gguf-f32"}, (
        "what cannot take the precision is left out, unless it is asked for"
    )
    assert main(["targets", "--fit", model, "-t", "android"]) == 0
    assert "Pixel 8 (2023)" in capsys.readouterr().out


def test_listing_targets_needs_no_engine() -> None:
    heavy = "{'onnx', 'gguf', 'llama_cpp', 'onnxruntime_genai'} & {*sys.modules}"
    code = f"import sys; from edge.cli import main; main(['targets']); print({heavy})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"

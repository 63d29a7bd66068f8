"""Phi-3-small as the hub has it, with a tiktoken file and no tokenizer.json, from `edge convert` to a conversation."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from converters.checkpoint import Checkpoint
from converters.models import describe
from edge.convert import ConvertRequest, convert, plan
from edge.fit import device_memory
from edge.plan import preview_plan
from edge.progress import Silent
from edge.runtimes import open_runtime
from edge.sources import resolve
from quant.recipe import Recipe
from tests.edge.hub_models import REPO, add_model, path_of, point_at
from tests.edge.local_server import Site, serving

Tiny = Callable[..., Path]


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("EDGE_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "small-cache"))


@pytest.mark.parametrize("shape", ["phi3-small", "phi3-small-128k"])
@pytest.mark.parametrize("precision", ["int4", "int8"])
def test_it_is_proven(shape: str, precision: str, tiny: Tiny, tmp_path: Path) -> None:
    request = ConvertRequest(str(tiny(shape)), ("cpu",), output=tmp_path / "b", precision=precision)
    convert(plan(request), Silent())
    manifest = json.loads((tmp_path / "b" / "manifest.json").read_text())
    proof = json.loads((tmp_path / "b" / "proof.json").read_text())["variants"][f"onnx-{precision}"]
    assert manifest["proof"] == "passed"
    assert manifest["model"]["model_type"] == "phi3small"
    assert proof["stored"]["values"] == manifest["model"]["parameters"]
    assert proof["fidelity"]["positions"] == 256
    assert not (tiny(shape) / "tokenizer.json").exists(), "a checkpoint is not written into"


def test_the_tokenizer_is_made_once_and_the_weights_are_not_copied(tiny: Tiny) -> None:
    checkpoint = tiny("phi3-small")
    first, second = resolve(str(checkpoint)), resolve(str(checkpoint))
    assert first == second
    assert first.directory != checkpoint
    assert first.name == checkpoint.name.lower()
    weights = "model.safetensors"
    assert (first.directory / weights).samefile(checkpoint / weights)
    assert (first.directory / "tokenizer.json").is_file()


def test_from_a_hub_before_and_after_the_download(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = tmp_path / "own"
    shutil.copytree(tiny("phi3-small"), checkpoint)
    template = "{{ messages[0]['content'] }}"
    (checkpoint / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    with serving(Site()) as site:
        point_at(site, monkeypatch, tmp_path)
        add_model(site, checkpoint)
        before = preview_plan(ConvertRequest(f"hf:{REPO}", ("cpu",)))
        assert path_of("tokenizer_config.json") not in site.sent
        here = resolve(f"hf:{REPO}")
    with Checkpoint.open(here.directory) as opened:
        assert describe(opened) == before.decoder
    config = json.loads((here.directory / "tokenizer_config.json").read_text())
    assert config["chat_template"] == template
    assert config["eos_token"] == "<|endoftext|>"
    # Once more, from the cache, whose snapshot is still as it was locked.
    assert resolve(f"hf:{REPO}") == here


def test_a_conversation_never_says_a_token_that_is_none(tiny: Tiny, tmp_path: Path) -> None:
    request = ConvertRequest(str(tiny("phi3-small")), ("cpu",), output=tmp_path / "b", precision="f32")
    convert(plan(request), Silent())
    runtime = open_runtime(tmp_path / "b" / "onnx-f32", threads=1)
    ids = runtime.encode("<|user|>\nwhat?<|end|>\n<|assistant|>\n", special=True)
    logits = runtime.append(ids)
    with Checkpoint.open(tiny("phi3-small")) as checkpoint:
        unused = list(describe(checkpoint).unused_tokens)
    assert len(unused) > 200
    shares = np.exp(logits - logits.max())
    assert (shares[unused] == 0).all()
    runtime.rewind(3)
    again = runtime.append(ids[3:])
    np.testing.assert_allclose(again, logits, rtol=1e-6, atol=1e-4)
    runtime.close()


def test_scores_of_sparse_attention_count_as_memory(tiny: Tiny) -> None:
    """Measured on this shape with 2 layers, prompt beyond what came before it: 258 MiB for 8,000 tokens in batches,
    2,252 MiB for 8,300, where LongRoPE has switched and 8,193 are read at once."""
    with Checkpoint.open(tiny("phi3-small-128k")) as checkpoint:
        decoder = describe(checkpoint)
    recipe = Recipe.preset("f32")
    batches, at_once = (
        device_memory("onnx", decoder, recipe, 8364, filled=n).workspace >> 20 for n in (8000, 8300)
    )
    assert 230 < batches < 300
    assert 2100 < at_once < 2400

"""Phi-4-mini-flash-reasoning from `edge convert` to a conversation: proven, reproducible, and never rewound wrongly."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.checkpoint import Checkpoint
from converters.errors import ProofError
from converters.models import describe
from edge.benchmarking.traffic import traffic
from edge.convert import ConvertRequest, convert, plan
from edge.fit import device_memory
from edge.progress import Silent
from edge.runtimes import open_runtime
from quant.recipe import Recipe
from tests.edge.engines import random_ids

Tiny = Callable[..., Path]
TOLERANCE = 1e-3  # as in test_runtimes: other chunks, another order of summation


def make(checkpoint: Path, output: Path, **options: Any) -> dict[str, Any]:
    convert(plan(ConvertRequest(str(checkpoint), ("cpu",), output=output, **options)), Silent())
    manifest: dict[str, Any] = json.loads((output / "manifest.json").read_text())
    return manifest


@pytest.fixture(scope="module")
def bundle(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("flash") / "bundle"
    make(tiny("phi4-flash"), output, precision="f32", context=1024)
    return output


@pytest.mark.parametrize("precision", ["int4", "int8", "f16"])
def test_every_precision_is_proven(precision: str, tiny: Tiny, tmp_path: Path) -> None:
    manifest = make(tiny("phi4-flash-odd"), tmp_path / "b", precision=precision)
    proof = json.loads((tmp_path / "b" / "proof.json").read_text())["variants"][f"onnx-{precision}"]
    assert manifest["proof"] == "passed"
    assert manifest["model"]["layers"] == 12
    assert proof["stored"]["values"] == manifest["model"]["parameters"]
    assert proof["fidelity"]["positions"] == 256


def test_same_input_same_bytes_with_any_number_of_threads(tiny: Tiny, tmp_path: Path) -> None:
    manifests = [make(tiny("phi4-flash"), tmp_path / str(n), threads=n, proof=False) for n in (1, 2)]
    assert manifests[0] == manifests[1]


def test_logits_do_not_depend_on_how_the_tokens_come(bundle: Path) -> None:
    runtime = open_runtime(bundle / "onnx-f32", threads=1, exact=True)
    ids = random_ids(600)
    whole = runtime.teacher_forced(ids)
    runtime.rewind(0)
    for start, stop in ((0, 1), (1, 40), (40, 595), (595, 600)):
        assert np.abs(runtime.append(ids[start:stop]) - whole[stop - 1]).max() < TOLERANCE
    # The states of position 300 are gone: everything is read anew, and nobody notices.
    runtime.rewind(300)
    other = random_ids(5, seed=1)
    rewound = runtime.append(other)
    assert runtime.position == 305
    assert np.abs(rewound - runtime.teacher_forced([*ids[:300], *other])[-1]).max() < TOLERANCE
    runtime.close()


def test_a_lost_weight_fails_the_proof(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decay and step are not quantized; were they written as zeros, the proof must say so."""
    encode = Recipe.encode

    def zeroed(self: Recipe, weight: Any, rows: Any, *, start: int = 0) -> Any:
        encoded = encode(self, weight, rows, start=start)
        return np.zeros_like(encoded) if weight.name == "layers.2.mamba.decay" else encoded

    monkeypatch.setattr(Recipe, "encode", zeroed)
    with pytest.raises(ProofError, match=r"layers\.2\.mamba\.decay"):
        make(tiny("phi4-flash"), tmp_path / "b")


def test_the_cache_grows_by_one_layer_in_four_of_a_window_and_one_whole(tiny: Tiny) -> None:
    with Checkpoint.open(tiny("phi4-flash", sliding_window=12)) as checkpoint:
        decoder = describe(checkpoint)
    recipe = Recipe.preset("f32")
    short, long = (device_memory("onnx", decoder, recipe, n).kv_cache for n in (1000, 2000))
    # 2 key-value heads of 16 channels, doubled; keys and values; float32; one layer that sees everything.
    assert long - short == 1000 * 2 * 32 * 2 * 4
    states = 3 * 4 * 128 * (16 + 3)
    windows = 2 * (12 + 64) * 2 * 32 * 2 * 4
    assert short == 1000 * 2 * 32 * 2 * 4 + windows + states


def test_a_token_reads_states_and_windows_whole_and_one_cache_for_each_layer_on_it(
    tiny: Tiny, bundle: Path
) -> None:
    found = traffic(bundle / "onnx-f32")
    assert found is not None
    with Checkpoint.open(tiny("phi4-flash")) as checkpoint:
        decoder = describe(checkpoint)
    position = 2 * 2 * 32 * 4  # keys and values of 2 heads, twice 16 channels wide, float32
    assert found.kv == 2 * position  # layer 5 makes them, layer 7 reads them too
    kept = 3 * 4 * 128 * (16 + 3) + 2 * 12 * position
    # Beside the weights, a few constants.
    assert 0 <= found.weights - kept - 4 * decoder.parameters <= 4096

"""The embedded default on Qualcomm's emulator: two layers of it in every run, the whole of it in the slow ones."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.cut_checkpoint import DEFAULT, cut_checkpoint
from converters.verify import divergence
from edge.chat.locate import choose
from edge.convert import ConvertRequest, convert, plan
from edge.progress import Silent
from edge.proof import proof_tokens
from edge.runtimes import open_runtime
from edge.sources import resolve
from tests.converters.npu_support import expected, write_npu
from tests.edge.npu_emulator import needs_emulator

pytestmark = needs_emulator
EDGE = str(Path(sys.executable).with_name("edge"))
COSINE = 0.999


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers with the real weights and vocabulary, compiled for one SoC."""
    work = tmp_path_factory.mktemp("cut")
    cut_checkpoint(resolve(DEFAULT).directory, work / "cut", 2)
    request = ConvertRequest(
        str(work / "cut"), ("android-npu",), context=128, output=work / "b", socs=("SM8650",)
    )
    convert(plan(request), Silent())
    return work / "b"


def test_two_layers_with_real_weights_are_proven(bundle: Path) -> None:
    proof = json.loads((bundle / "proof.json").read_text())
    assert set(proof["variants"]) == {"npu-int4", "npu-int4-SM8650"}
    for result in proof["variants"].values():
        assert result["fidelity"]["cosine"] >= COSINE
        assert result["fidelity"]["top1"] >= 0.9


@pytest.mark.parametrize("variant", ["npu-int4", "npu-int4-SM8650"])
def test_chat_answers_on_the_emulator(variant: str, bundle: Path) -> None:
    command = [
        EDGE,
        "chat",
        str(bundle),
        "--variant",
        variant,
        "--max-tokens",
        "2",
        "--json",
        "Good morning!",
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    answer = json.loads(done.stdout)
    assert answer["answer_tokens"] == 2
    assert "(emulated NPU)" in answer["runtime"]


def test_a_bundle_is_chatted_with_in_its_first_variant(bundle: Path) -> None:
    assert choose(bundle, None).label.endswith("/npu-int4")


@pytest.mark.slow
def test_the_whole_model_says_what_its_weights_say(tmp_path: Path) -> None:
    """A prompt and two single tokens, of all 30 layers: about a minute of emulation."""
    source = resolve(DEFAULT)
    decoder = write_npu(source.directory, tmp_path / "npu", context=32, window=16)
    ids = proof_tokens(source.directory, decoder, 8)
    found = divergence(expected(source.directory, ids), open_runtime(tmp_path / "npu").teacher_forced(ids))
    print(found)
    assert found.cosine >= COSINE
    assert found.top1 >= 0.8
    assert found.kl_mean < 0.01

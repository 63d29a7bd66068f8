"""`edge heal`: what comes out is a checkpoint and an adapter that convert together, and say more of what was lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from converters.errors import TrainingError
from edge.bundle import sha256
from edge.convert import ConvertRequest, convert, plan
from edge.heal import HealReport, HealRequest, heal
from edge.healing import Method
from edge.progress import Silent
from tests.adapters import merged_logits

Tiny = Callable[..., Path]


@pytest.fixture(scope="module")
def model(tiny: Tiny) -> Path:
    return tiny("phi4-mini")


@pytest.fixture(scope="module")
def loftq(model: Path, tmp_path_factory: pytest.TempPathFactory) -> HealReport:
    """After five iterations and a short training."""
    output = tmp_path_factory.mktemp("heal") / "loftq"
    return heal(
        HealRequest(str(model), "loftq", rank=8, steps=10, rate=1e-3, batch=1, output=output), Silent()
    )


def bundle(checkpoint: Path, output: Path, *targets: str, adapter: bool) -> Path:
    words = (f"healed={checkpoint / 'adapter'}",) if adapter else ()
    request = ConvertRequest(str(checkpoint), targets, context=64, adapters=words, output=output)
    report = convert(plan(request), Silent())
    assert report.proof is not None
    assert report.proof["passed"]
    return output


def test_each_stage_comes_nearer_to_the_teacher(loftq: HealReport) -> None:
    kl = loftq.shrink["kl"]
    assert kl["healed"] < kl["started"] < kl["as it came"]
    for layer in loftq.shrink["layers"]:
        assert min(layer["errors"][1:]) < layer["errors"][0]


def test_both_are_proven_on_both_runtimes_and_the_weights_are_the_checkpoints(
    loftq: HealReport, tmp_path: Path
) -> None:
    """More iterations change what is rounded, and the checkpoint beside the adapter holds that: the adapter itself
    changes no byte of the weights."""
    with_it = bundle(loftq.output, tmp_path / "with", "cpu", "android", adapter=True)
    without = bundle(loftq.output, tmp_path / "without", "android", adapter=False)
    (name,) = (file.name for file in without.glob("*.gguf"))
    assert sha256(with_it / name) == sha256(without / name)


def test_with_one_iteration_the_backbone_is_that_of_the_model_alone(model: Path, tmp_path: Path) -> None:
    """Byte for byte what `edge convert` makes without any healing, in both rooms: the adapter stands beside it."""
    output = tmp_path / "one" / model.name
    heal(HealRequest(str(model), "loftq", rank=4, iterations=1, output=output), Silent())
    ours = bundle(output, tmp_path / "ours", "android", "cpu", adapter=True)
    alone = bundle(model, tmp_path / "alone", "android", "cpu", adapter=False)
    backbones = [*alone.glob("*.gguf"), *alone.glob("*/model.onnx.data")]
    assert len(backbones) == 2
    for file in backbones:
        assert sha256(ours / file.relative_to(alone)) == sha256(file)


def test_peft_reads_the_adapter_with_a_scale_of_1(loftq: HealReport) -> None:
    config = json.loads((loftq.adapter / "adapter_config.json").read_text())
    assert config["lora_alpha"] == config["r"] == 8
    assert config["init_lora_weights"] is True
    ids = list(range(3, 40))
    without, merged = (merged_logits(loftq.output, adapter, ids) for adapter in (None, loftq.adapter))
    assert np.abs(merged - without).max() > 0.01


def test_the_record_says_how_it_was_made(model: Path, loftq: HealReport) -> None:
    record = json.loads((loftq.output / "shrink.json").read_text())
    assert record == json.loads(json.dumps(loftq.shrink))
    assert record["step"] == "heal"
    assert record["settings"]["method"] == "loftq"
    assert record["made_from"]["sha256"]["model.safetensors"] == sha256(model / "model.safetensors")
    assert record["recipe"]["name"] == "int4"
    assert len(record["losses"]) == 10


def test_two_runs_write_the_same_bytes(tiny: Tiny, model: Path, tmp_path: Path) -> None:
    runs = []
    for name in "ab":
        output = tmp_path / name / "out"
        heal(
            HealRequest(str(model), "adalora", rank=2, steps=10, batch=1, rate=1e-2, output=output), Silent()
        )
        runs.append({p.relative_to(output): p.read_bytes() for p in output.rglob("*") if p.is_file()})
    assert runs[0] == runs[1]


class InterruptAt(Silent):
    """Ctrl-C in the training, after so many steps of it."""

    def __init__(self, steps: int) -> None:
        self.left, self.training = steps, False

    def stage(self, name: str, total: int | None = None, unit: str = "") -> None:
        self.training = name == "heal"

    def advance(self, n: int) -> None:
        if self.training:
            self.left -= n
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("method", ["loftq", "adalora"])
def test_an_interrupted_run_ends_with_the_same_bytes(model: Path, tmp_path: Path, method: Method) -> None:
    """AdaLoRA is stopped where ranks are shared out, and again where they are held: steps 2 to 13 of 20, and after."""
    output = tmp_path / "out"
    request = HealRequest(str(model), method, rank=2, steps=20, batch=1, rate=1e-2, output=output)

    def files() -> dict[Path, bytes]:
        return {p.relative_to(output): p.read_bytes() for p in output.rglob("*") if p.is_file()}

    heal(request, Silent())
    whole = files()
    shutil.rmtree(output)
    for steps in (7, 16):
        with pytest.raises(KeyboardInterrupt):
            heal(request, InterruptAt(steps))
        assert [p.name for p in tmp_path.iterdir()] == [".out.edge-heal"]
    heal(request, Silent())
    assert files() == whole
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_the_record_holds_those_of_the_steps_before(loftq: HealReport, tmp_path: Path) -> None:
    request = HealRequest(
        str(loftq.output), "loftq", rank=2, teacher=str(loftq.output), output=tmp_path / "b"
    )
    assert heal(request, Silent()).shrink["before"] == json.loads((loftq.output / "shrink.json").read_text())


def test_a_training_that_diverges_leaves_nothing(model: Path, tmp_path: Path) -> None:
    request = HealRequest(str(model), "loftq", rank=2, steps=5, batch=1, rate=1e30, output=tmp_path / "out")
    with pytest.raises(TrainingError):
        heal(request, Silent())
    assert not list(tmp_path.iterdir())

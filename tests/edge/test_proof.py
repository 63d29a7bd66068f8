"""What a proof says when it is the machine, the checkpoint or the context that differs, and not the artifact."""

from __future__ import annotations

import dataclasses
import errno
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.checkpoint import Checkpoint
from converters.errors import MachineError, UnsupportedError
from converters.models import describe
from converters.verify import BLOCK_ERROR_LIMIT, check_stored
from edge import proof as proof_module
from edge.bundle import load
from edge.convert import ConvertRequest, convert, plan
from edge.progress import Silent
from edge.proof import Subject, prove
from edge.runtimes.isolated import teacher_forced
from edge.verification import subjects, verify
from quant.recipe import Recipe

Tiny = Callable[..., Path]


@pytest.fixture(scope="module")
def bundle(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("proof") / "b"
    convert(plan(ConvertRequest(str(tiny("phi4-mini")), ("cpu",), output=output, context=4096)), Silent())
    return output


def proven(checkpoint: Path, given: list[Subject]) -> dict[str, Any]:
    with Checkpoint.open(checkpoint) as opened:
        return prove(opened, describe(opened), given, Silent())


def test_every_subject_is_proven_on_its_own_context(tiny: Tiny, tmp_path: Path, bundle: Path) -> None:
    """A short variant beside a long one: both pass, and the long one is proven on all of the text."""
    short = tmp_path / "short"
    convert(plan(ConvertRequest(str(tiny("phi4-mini")), ("cpu",), output=short, context=32)), Silent())
    (long_one,), (short_one,) = subjects(load(bundle)), subjects(load(short))
    given = [dataclasses.replace(short_one, name="short"), dataclasses.replace(long_one, name="long")]
    found = proven(tiny("phi4-mini"), given)
    assert found["passed"], found
    assert found["variants"]["short"]["tokens"] == 32
    assert found["variants"]["long"]["tokens"] == found["tokens"] > 32


def test_a_checkpoint_of_another_vocabulary_fails_the_proof_in_words(tiny: Tiny, bundle: Path) -> None:
    other = tiny("phi4-mini", vocab_size=704)
    result = verify(bundle, str(other), Silent())
    assert not result.ok
    assert result.proof is not None
    (variant,) = result.proof["variants"].values()
    assert any("logits have the shape" in line for line in variant["failures"]), variant["failures"]


@pytest.mark.parametrize(
    ("signal", "error"),
    [("KILL", MachineError), ("SEGV", UnsupportedError), ("ABRT", UnsupportedError)],
)
def test_only_a_killed_engine_is_the_machines_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signal: str, error: type[Exception]
) -> None:
    engine = tmp_path / "engine"
    engine.write_text(f"#!/bin/sh\nkill -{signal} $$\n")
    engine.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(engine))
    with pytest.raises(error, match="the engine that runs b"):
        teacher_forced(Path("b"), [1], tmp_path, context_length=8)


def test_a_full_disk_is_no_failed_proof(tiny: Tiny, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **kwargs: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(proof_module, "teacher_forced", full)
    with pytest.raises(MachineError, match="No space left"):
        proven(tiny("phi4-mini"), subjects(load(bundle)))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_the_engine_reports_a_disk_that_is_full(bundle: Path) -> None:
    """/dev/full fails every write as a full disk does: here that of the logits."""
    script = (
        "import os, sys; from edge.runtimes import isolated; fd = os.open('/dev/full', os.O_WRONLY); "
        "isolated._main(sys.argv[1], '64', str(fd), str(os.getppid()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(bundle / "onnx-int4")],
        input='{"ids": [1, 2], "text": "", "adapter": null, "media": []}', capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "No space left" in done.stdout
    assert '"machine"' in done.stdout


@pytest.mark.parametrize("precision", ["int4", "int8"])
@pytest.mark.parametrize("size", [3e-9, 3e-8, 3e-7, 1e-5])
def test_the_best_rounding_of_tiny_values_is_not_refused(tiny: Tiny, precision: Any, size: float) -> None:
    """Their scales are subnormal in float16 or 0: no encoder does better, so it is no fault."""
    recipe = Recipe.preset(precision)
    values = np.random.default_rng(0).standard_normal((64, 256)).astype(np.float32) * np.float32(size)
    with Checkpoint.open(tiny("phi4-mini")) as checkpoint:
        decoder = describe(checkpoint)
    weight = dataclasses.replace(decoder.layers[0].dense.up, shape=values.shape)
    one = dataclasses.replace(decoder, embedding=weight, lm_head=weight, layers=())
    source: Any = _Rows(values)
    report = check_stored(
        source, dataclasses.replace(one, final_norm=weight), _Made(recipe, values, one.rope),
        context_length=8, codec=lambda w, start, raw: recipe.decode(recipe.encode(w, raw, start=start)),
    )  # fmt: skip
    assert report.faults == ()
    assert report.worst_block_error <= BLOCK_ERROR_LIMIT


class _Rows:
    """A checkpoint of one matrix."""

    def __init__(self, values: Any) -> None:
        self.values = values

    def weight_rows(self, weight: Any, start: int, stop: int) -> Any:
        return self.values[start:stop]


class _Made:
    """An artifact that holds what the recipe makes."""

    def __init__(self, recipe: Recipe, values: Any, rope: Any) -> None:
        self.recipe, self.values, self.rope = recipe, values, rope

    def rows(self, weight: Any, start: int, stop: int) -> Any:
        return self.recipe.decode(self.recipe.encode(weight, self.values[start:stop]))

    def rope_table(self, total: int, positions: Any) -> Any:
        from converters.verify import _angles

        return _angles(self.rope, total, positions)

    def facts(self, context_length: int) -> Any:
        return ()

    def close(self) -> None: ...

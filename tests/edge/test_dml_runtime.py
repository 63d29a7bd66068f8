"""A DirectML folder runs here on the CPU, says so, and takes tokens only as DirectML takes them rightly."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnxruntime_genai as og
import pytest
from numpy.typing import NDArray

from converters.checkpoint import Checkpoint
from converters.errors import UnsupportedError
from converters.models import describe
from edge import cli
from edge.runtimes import open_runtime
from edge.runtimes.dml import FEW, DmlRuntime
from quant.recipe import Recipe
from tests.converters.dml_support import convert, reference
from tests.converters.onnx_support import random_ids
from tests.edge.engines import largest

Tiny = Callable[..., Path]
INT4 = Recipe.preset("int4")
TOLERANCE = 0.03
"""float16 activations, logits of order 1: measured 0.014 at most. A token dropped or misplaced moves them by 1."""


@pytest.fixture(scope="module")
def folder(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("dml")
    convert(tiny("phi4-mini"), directory, INT4)
    return directory


@pytest.fixture(scope="module")
def ids(tiny: Tiny) -> list[int]:
    """With an end of sequence in their midst, which is the padding token too, and one as the 31st."""
    with Checkpoint.open(tiny("phi4-mini")) as opened:
        decoder = describe(opened)
    made = random_ids(decoder, 100)
    assert decoder.pad_token_id in decoder.eos_token_ids
    made[30] = made[71] = decoder.eos_token_ids[0]
    return made


@pytest.fixture(scope="module")
def expected(tiny: Tiny, ids: list[int]) -> NDArray[np.float32]:
    return reference(tiny("phi4-mini"), INT4, ids)


@pytest.fixture
def runtime(folder: Path) -> Iterator[DmlRuntime]:
    opened = open_runtime(folder, threads=1)
    assert isinstance(opened, DmlRuntime)
    yield opened
    opened.close()


def test_it_says_where_it_runs(runtime: DmlRuntime) -> None:
    assert runtime.name == f"onnxruntime-genai {og.__version__} on the CPU, for want of DirectML"


def test_without_naming_the_cpu_the_engine_refuses_the_folder(folder: Path) -> None:
    """So nothing can have run on the CPU in silence."""
    with pytest.raises(RuntimeError, match="DML"):
        og.Model(str(folder))


def test_where_directml_is_the_folder_s_provider_stays(folder: Path) -> None:
    """The engine here has none and says so: the provider was not taken away."""
    with (
        mock.patch.object(og, "is_dml_available", return_value=True),
        pytest.raises(UnsupportedError, match=r"on DirectML cannot load it: .*DML"),
    ):
        open_runtime(folder)


def test_teacher_forced_logits(runtime: DmlRuntime, ids: list[int], expected: NDArray[np.float32]) -> None:
    assert largest(runtime.teacher_forced(ids) - expected) < TOLERANCE
    assert largest(runtime.teacher_forced(ids, first=60) - expected[60:]) < TOLERANCE
    assert largest(runtime.teacher_forced(ids, first=99) - expected[99:]) < TOLERANCE
    assert largest(runtime.teacher_forced(ids[:1]) - expected[:1]) < TOLERANCE


@pytest.mark.parametrize(
    "sizes",
    [
        [100],
        [68] + [1] * 32,
        [31, 69],
        [1, 2, 3, 4, 5, 60, 25],
        [69, 2, 1, FEW, 24],
    ],
)
def test_logits_do_not_depend_on_how_the_tokens_come(
    sizes: list[int], runtime: DmlRuntime, ids: list[int], expected: NDArray[np.float32]
) -> None:
    """An end of sequence one by one, a prompt that ends with the padding token, turns of every length."""
    stop = 0
    for size in sizes:
        start, stop = stop, stop + size
        assert largest(runtime.append(ids[start:stop]) - expected[stop - 1]) < TOLERANCE, (start, stop)
        assert runtime.position == stop


def test_every_row_of_an_append(runtime: DmlRuntime, ids: list[int], expected: NDArray[np.float32]) -> None:
    runtime.append(ids[:40])
    assert largest(runtime.append_all(ids[40:43]) - expected[40:43]) < TOLERANCE
    assert largest(runtime.append_all(ids[43:90]) - expected[43:90]) < TOLERANCE


def test_rewinding(runtime: DmlRuntime, ids: list[int], expected: NDArray[np.float32]) -> None:
    runtime.append(ids[:60])
    runtime.rewind(50)
    assert runtime.position == 50
    assert largest(runtime.append(ids[50:51]) - expected[50]) < TOLERANCE
    runtime.rewind(0)
    assert largest(runtime.append(ids[:5]) - expected[4]) < TOLERANCE


def test_the_context_s_end(folder: Path, ids: list[int], expected: NDArray[np.float32]) -> None:
    runtime = open_runtime(folder, context_length=40, threads=1)
    runtime.append(ids[:37])
    for position in (37, 38, 39):
        assert largest(runtime.append([ids[position]]) - expected[position]) < TOLERANCE
    with pytest.raises(UnsupportedError, match="do not fit a context of 40"):
        runtime.append([ids[40]])
    assert runtime.position == 40
    runtime.rewind(20)
    assert largest(runtime.append(ids[20:40]) - expected[39]) < TOLERANCE
    runtime.close()


class _DirectML:
    """A generator that refuses what DirectML's does: tokens after others, several at once."""

    def __init__(self, made: Any) -> None:
        self._made = made

    def append_tokens(self, tokens: NDArray[np.int32]) -> None:
        assert self._made.token_count() == 0, "DirectML's attention would take the cache for empty"
        self._made.append_tokens(tokens)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._made, name)


def test_nothing_is_appended_to_a_cache_that_is_not_empty(
    folder: Path, ids: list[int], expected: NDArray[np.float32]
) -> None:
    original = DmlRuntime._fresh
    with mock.patch.object(DmlRuntime, "_fresh", lambda self: _DirectML(original(self))):
        runtime = open_runtime(folder, threads=1)
        for start, stop in ((0, 10), (10, 11), (11, 15), (15, 60), (60, 100)):
            assert largest(runtime.append(ids[start:stop]) - expected[stop - 1]) < TOLERANCE
        runtime.rewind(30)
        runtime.append_all(ids[30:50])
        runtime.teacher_forced(ids)
        runtime.close()


def test_convert_proves_it_and_says_where(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "b"
    assert cli.main(["convert", str(tiny("phi4-mini")), "--target", "windows", "-o", str(bundle)]) == 0
    proof = json.loads((bundle / "proof.json").read_text())["variants"]["dml-int4"]
    assert proof["passed"]
    assert proof["runtime"].endswith("on the CPU, for want of DirectML")
    assert proof["fidelity"]["kl_mean"] < 1e-5
    assert cli.main(["verify", str(bundle), "--against", str(tiny("phi4-mini"))]) == 0
    capsys.readouterr()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    assert cli.main(["chat", "hello", "-m", str(bundle), "--max-tokens", "4"]) == 0
    assert capsys.readouterr().out

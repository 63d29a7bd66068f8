"""`edge convert --calibrate`: one set of codes in both formats, proven, kept, resumed, and verified later."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.checkpoint import Checkpoint
from converters.models import describe
from converters.rooms import ROOMS
from edge import calibration, calibration_text
from edge.bundle import load
from edge.chat.templates import ChatTemplate
from edge.cli import main
from edge.convert import ConvertRequest, convert, plan
from edge.progress import Silent
from edge.runtimes.tokenizer import FolderTokenizer
from edge.sources.cache import cache_directory
from quant.calibrate import Calibration
from quant.recipe import Recipe

Tiny = Callable[..., Path]
WORDS = "the quick brown fox jumps over a lazy dog while seven wizards brew strong black coffee".split()  # noqa: SIM905  # words are read as words


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def text(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path / "words.txt"
    path.write_text(" ".join(rng.choice(WORDS, 1200)))
    return path


def request(checkpoint: Path, text: Path, output: Path, *targets: str, **options: Any) -> ConvertRequest:
    options.setdefault("proof", False)
    return ConvertRequest(str(checkpoint), targets, output=output, calibrate=text, **options)


def run(asked: ConvertRequest) -> dict[str, Any]:
    convert(plan(asked), Silent())
    assert asked.output is not None
    return load(asked.output).manifest


def files(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def test_both_formats_hold_the_same_codes_and_are_proven(tiny: Tiny, text: Path, tmp_path: Path) -> None:
    manifest = run(request(tiny("phi4-mini"), text, tmp_path / "b", "android", "cpu", proof=True))
    record = manifest["calibration"]["int4 calibrated"]
    assert record["text"] == "words.txt"
    assert record["windows"] * record["length"] >= 2048
    assert manifest["proof"] == "passed"
    with Checkpoint.open(tiny("phi4-mini")) as checkpoint:
        decoder = describe(checkpoint)
    rows = []
    for variant in load(tmp_path / "b").variants:
        recipe = Recipe.from_data(variant.recipe)
        assert {r.method for r in recipe.rules if r.pattern == "*"} == {"gptq"}
        stored = ROOMS[variant.format].open_stored(variant.path, decoder, recipe)
        rows.append([stored.rows(w, 0, w.rows) for w in decoder.weights() if w.is_matrix])
        stored.close()
    for first, second in zip(*rows, strict=True):
        assert np.array_equal(first, second)


def test_verify_needs_no_codes(tiny: Tiny, text: Path, tmp_path: Path) -> None:
    """The cache may be long gone: the artifact is then judged by what it says."""
    run(request(tiny("phi4"), text, tmp_path / "b", "android"))
    shutil.rmtree(cache_directory() / "calibrations")
    assert main(["verify", str(tmp_path / "b"), "--against", str(tiny("phi4"))]) == 0


def test_codes_are_made_once(tiny: Tiny, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(request(tiny("phi4"), text, tmp_path / "first", "android"))
    monkeypatch.delattr(Calibration, "step")
    run(request(tiny("phi4"), text, tmp_path / "second", "android"))
    assert files(tmp_path / "first") == files(tmp_path / "second")


def test_a_stopped_calibration_goes_on_where_it_was(
    tiny: Tiny, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = tiny("phi4", num_hidden_layers=3)
    run(request(checkpoint, text, tmp_path / "whole", "android"))
    shutil.rmtree(cache_directory() / "calibrations")
    monkeypatch.setattr(calibration, "SAVE_SECONDS", 0.0)
    step, seen = Calibration.step, []

    def interrupted(self: Calibration) -> None:
        if self.layer == 2 and len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(self.layer)
        step(self)

    monkeypatch.setattr(Calibration, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(request(checkpoint, text, tmp_path / "parts", "android"))
    assert not (tmp_path / "parts").exists()
    seen.append(-1)
    run(request(checkpoint, text, tmp_path / "parts", "android"))
    assert seen == [0, 1, -1, 2]
    assert files(tmp_path / "whole") == files(tmp_path / "parts")


def test_spilled_codes_are_the_same(tiny: Tiny, text: Path, tmp_path: Path) -> None:
    run(request(tiny("phi4"), text, tmp_path / "memory", "android"))
    shutil.rmtree(cache_directory() / "calibrations")
    run(request(tiny("phi4"), text, tmp_path / "disk", "android", spill=True))
    assert files(tmp_path / "memory") == files(tmp_path / "disk")


def test_another_text_gives_other_codes(tiny: Tiny, text: Path, tmp_path: Path) -> None:
    run(request(tiny("phi4"), text, tmp_path / "first", "android"))
    text.write_text(text.read_text()[::-1])
    run(request(tiny("phi4"), text, tmp_path / "second", "android"))
    one, two = (load(tmp_path / n).manifest["calibration"]["int4 calibrated"] for n in ("first", "second"))
    assert one["codes_sha256"] != two["codes_sha256"]


def test_only_so_many_calibrations_are_kept(tiny: Tiny, text: Path, tmp_path: Path) -> None:
    for i in range(calibration.KEPT + 2):
        text.write_text(f"{i} {text.read_text()}")
        run(request(tiny("phi4"), text, tmp_path / "b", "android"))
    assert len(list((cache_directory() / "calibrations").glob("*/done.json"))) == calibration.KEPT


def test_windows_lie_all_over_the_text(tiny: Tiny, text: Path) -> None:
    with Checkpoint.open(tiny("phi4")) as checkpoint:
        decoder = describe(checkpoint)
    every = calibration_text.read_text(text, tiny("phi4"), decoder).windows
    assert every.shape[1] == min(calibration_text.LENGTH, decoder.context_length)
    assert 3 < len(every) <= calibration_text.WINDOWS
    some = calibration_text.read_text(text, tiny("phi4"), decoder, count=3).windows
    # The first token of a window is another matter.
    assert np.array_equal(some[:, 1:], every[[0, (len(every) - 1) // 2, -1], 1:])


def test_chats_that_ship_are_in_the_models_own_template(tiny: Tiny) -> None:
    folder = tiny("phi4")
    with Checkpoint.open(folder) as checkpoint:
        decoder = describe(checkpoint)
    tokenizer = FolderTokenizer(folder)
    template = tokenizer.dialect(frozenset()).template
    assert template is not None
    chat = json.loads(calibration_text.DEFAULT_CHATS.read_text().splitlines()[0])
    messages = [
        {"role": "user", "content": chat["user"]},
        {"role": "assistant", "content": chat["assistant"]},
    ]
    begun = tokenizer.encode(
        ChatTemplate(template).render(messages, add_generation_prompt=False), special=True
    )
    read = calibration_text.read_text(None, folder, decoder)
    windows = read.windows
    assert len(windows) == calibration_text.WINDOWS
    assert read.template
    assert read.chats == calibration_text.WINDOWS // calibration_text.CHATS
    first = windows[-(calibration_text.WINDOWS // calibration_text.CHATS)]
    count = min(len(begun), len(first))
    assert first[:count].tolist() == begun[:count]
    # Prose begins with the token that chats begin with, every other time at least.
    assert (windows[:, 0] == begun[0]).sum() >= len(windows) // 2


@pytest.mark.parametrize("template", ["", "{{ raise_exception('no') }}", "{% if %}"])
def test_a_template_that_cannot_be_used_leaves_chats_in_words(
    tiny: Tiny, tmp_path: Path, template: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny("phi4"), folder)
    (folder / "chat_template.jinja").write_text(template)
    with Checkpoint.open(folder) as checkpoint:
        decoder = describe(checkpoint)
    read = calibration_text.read_text(None, folder, decoder)
    assert not read.template
    begun = FolderTokenizer(folder).encode("Question: ", special=True)[:1]
    assert read.windows[-read.chats, :1].tolist() == begun


def test_what_it_takes_is_said_first(tiny: Tiny, text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["convert", str(tiny("phi4")), "-t", "cpu", "--calibrate", str(text), "--dry-run", "--json"]
    assert main(arguments) == 0
    planned = json.loads(capsys.readouterr().out)
    assert planned["calibration"]["seconds"] >= 0
    assert planned["memory_bytes"] >= planned["calibration"]["memory_bytes"]
    assert planned["calibration"]["disk_bytes"] > 0

"""Images and recordings through the real graphs: what the reference says, one prompt at a time and turn by turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.engine_settings import EngineSettings
from edge.runtimes.folder import read_folder
from edge.runtimes.multimodal import runtime as runtime_module
from edge.runtimes.multimodal.runtime import MultimodalRuntime
from tests.edge.multimodal_support import TOLERANCE, VOCABULARY, Oracle, make, prompt, read, write_media

TinyMultimodal = Callable[..., Path]
SWITCH = 4096
"""Tokens up to which LongRoPE's short factors hold."""
FAR = 5e-3
"""There one float32 rounding of position * frequency, as in the original, is 2e-4 radians, and the reference rounds
none; measured 1.2e-3."""
MODELS: dict[str, dict[str, Any]] = {
    "phi4_multimodal": {"vocab_size": VOCABULARY},
    "no-adapters": {"vocab_size": VOCABULARY, "adapters": False},
    "phi3_v": {},
}
SEEN = {"text": (), "image": ("a.png",), "images": ("b.jpg", "a.png", "c.png")}
HEARD = {
    "audio": ("a.wav",),
    "recordings": ("a.wav", "b.flac", "c.wav"),
    "image and audio": ("c.png", "a.wav"),
    "audio and image": ("b.flac", "b.jpg"),
}
CASES = [(model, case) for model in MODELS for case in (SEEN if model == "phi3_v" else SEEN | HEARD)]


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("media")
    write_media(directory)
    return directory


@pytest.fixture(scope="module")
def opened(
    tiny_multimodal: TinyMultimodal, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., tuple[MultimodalRuntime, Oracle]]]:
    """(runtime, oracle) of a model in float32, with nothing shown and nothing in its cache."""
    made: dict[str, tuple[MultimodalRuntime, Oracle]] = {}

    def open_(name: str) -> tuple[MultimodalRuntime, Oracle]:
        if name not in made:
            layout = "phi3_v" if name == "phi3_v" else "phi4_multimodal"
            checkpoint = tiny_multimodal(layout, **MODELS[name])
            bundle = make(checkpoint, tmp_path_factory.mktemp(name) / "b", precision="f32", context=1024)
            made[name] = open_variant(bundle), Oracle(checkpoint)
        runtime, oracle = made[name]
        runtime.show([])
        runtime.rewind(0)
        return runtime, oracle

    yield open_
    for runtime, oracle in made.values():
        runtime.close()
        oracle.close()


def open_variant(bundle: Path, batch: int | None = None) -> MultimodalRuntime:
    settings = EngineSettings(threads=1, batch=batch)
    return MultimodalRuntime(read_folder(next(bundle.glob("multimodal-*")), None), settings)


@pytest.mark.parametrize(("model", "case"), CASES)
def test_a_prompt_is_as_the_reference(model: str, case: str, opened: Any, media: Path) -> None:
    """At once, token by token, and in chunks that end inside of an image's places and at their edges."""
    runtime, oracle = opened(model)
    shown = read(runtime, media, *(SEEN | HEARD)[case])
    ids = prompt(shown)
    expected = oracle.logits(ids, shown)
    runtime.show(shown)
    at_once = runtime.teacher_forced(ids)
    np.testing.assert_allclose(at_once, expected, rtol=0, atol=TOLERANCE)
    edge = 4 + (len(shown[0].ids) if shown else 0)
    cuts = sorted({0, 3, 4, edge // 2, edge - 1, edge, edge + 1, len(ids)} & set(range(len(ids) + 1)))
    runtime.rewind(0)
    for start, stop in pairwise(cuts):
        last = runtime.append(ids[start:stop])
        np.testing.assert_allclose(last, expected[stop - 1], rtol=0, atol=TOLERANCE)
    runtime.rewind(max(0, len(ids) - 12))
    for i in range(runtime.position, len(ids)):
        np.testing.assert_allclose(runtime.append([ids[i]]), expected[i], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("case", ["image", "audio", "image and audio"])
def test_the_adapter_of_the_modality_is_what_answers(case: str, opened: Any, media: Path) -> None:
    runtime, oracle = opened("phi4_multimodal")
    shown = read(runtime, media, *(SEEN | HEARD)[case])
    ids = prompt(shown)
    runtime.show(shown)
    answer = runtime.teacher_forced(ids, first=len(ids) - 4)
    without = oracle.logits(ids, shown, last=4, adapters=False)
    assert np.abs(answer - without).max() > 1000 * TOLERANCE
    np.testing.assert_allclose(answer, oracle.logits(ids, shown, last=4), rtol=0, atol=TOLERANCE)


def test_turns_that_switch(opened: Any, media: Path) -> None:
    """A conversation that begins as text, hears, then sees, then another one of text: after each turn the logits are
    those of a conversation that was read at once."""
    runtime, oracle = opened("phi4_multimodal")
    ids, shown, kept = [3, 4, 5], [], []
    runtime.append(ids)
    for name in ("a.wav", "b.flac", "c.png", "c.wav", "a.png"):
        shown = [*shown, *read(runtime, media, name)]
        ids = [*ids, 41, *shown[-1].ids, 42, 43]
        runtime.show(shown)
        kept.append(runtime.position)
        last = runtime.append(ids[runtime.position :])
        np.testing.assert_allclose(last, oracle.logits(ids, shown, last=1)[0], rtol=0, atol=TOLERANCE)
    before = [len(ids) - sum(len(m.ids) + 3 for m in shown[i:]) for i in range(len(shown))]
    # Read anew where the adapter changes: at the first recording and at the first image.
    assert kept == [0, before[1], 0, before[3], before[4]]
    runtime.show([])
    assert runtime.position == 0
    np.testing.assert_allclose(runtime.append([8, 9]), oracle.logits([8, 9], [])[-1], rtol=0, atol=TOLERANCE)


def test_the_cache_goes_back_to_what_changed(
    opened: Any, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime, oracle = opened("phi4_multimodal")
    encoded = []
    real = runtime_module.encode
    monkeypatch.setattr(
        runtime_module, "encode", lambda *args, **kwargs: encoded.append(args[1]) or real(*args, **kwargs)
    )
    first, second, other = read(runtime, media, "a.png", "b.jpg", "c.png")
    runtime.show([first, second])
    ids = prompt([first, second])
    runtime.append(ids)
    runtime.show([first, second, other])
    assert runtime.position == len(ids)
    runtime.show([first, other])
    assert runtime.position == 4 + len(first.ids) + 2
    changed = prompt([first, other])
    last = runtime.append(changed[runtime.position :])
    np.testing.assert_allclose(
        last, oracle.logits(changed, [first, other], last=1)[0], rtol=0, atol=TOLERANCE
    )
    assert encoded == ["image"] * 3  # each file once
    runtime.show([second, other])
    assert runtime.position == 4


def test_speech_that_an_image_joins_is_heard_anew(opened: Any, media: Path) -> None:
    """Its projection is another one beside an image; without adapters nothing else changes."""
    runtime, oracle = opened("no-adapters")
    heard, seen = read(runtime, media, "a.wav", "c.png")
    runtime.show([heard])
    runtime.append(prompt([heard]))
    runtime.show([heard, seen])
    assert runtime.position == 4
    ids = prompt([heard, seen])
    last = runtime.append(ids[4:])
    np.testing.assert_allclose(last, oracle.logits(ids, [heard, seen], last=1)[0], rtol=0, atol=TOLERANCE)


def test_longrope_switches_inside_an_image(
    tiny_multimodal: TinyMultimodal, tmp_path: Path, media: Path
) -> None:
    """Token by token across 4,096, which lies among the places of an image; each side as a fresh prefill says."""
    checkpoint = tiny_multimodal("phi4_multimodal", vocab_size=VOCABULARY)
    runtime = open_variant(make(checkpoint, tmp_path / "b", precision="f32", context=SWITCH + 64))
    oracle = Oracle(checkpoint)
    shown = read(runtime, media, "c.png")
    before = SWITCH - len(shown[0].ids) // 2
    ids = [*np.random.default_rng(2).integers(5, 500, before).tolist(), *shown[0].ids, 7, 8]
    short, long = (
        oracle.logits(ids[:SWITCH], shown, last=4),
        oracle.logits(ids, shown, last=len(ids) - SWITCH + 3),
    )
    assert np.abs(short[-1] - long[2]).max() > 50 * FAR, "the switch changes nothing here"
    runtime.show(shown)
    runtime.append(ids[: SWITCH - 4])
    for i in range(4):
        at = SWITCH - 4 + i
        np.testing.assert_allclose(runtime.append([ids[at]]), short[i], rtol=0, atol=FAR)
    for at in range(SWITCH, len(ids)):
        last = runtime.append([ids[at]])
        np.testing.assert_allclose(last, long[at - SWITCH + 3], rtol=0, atol=FAR)
    at_once = runtime.teacher_forced(ids, first=len(ids) - 5)
    np.testing.assert_allclose(at_once, long[-5:], rtol=0, atol=FAR)
    runtime.close()
    oracle.close()

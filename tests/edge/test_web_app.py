"""`--app web` in Chromium: the answers of `edge chat`, online, offline, on one thread, after an update."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.chat.session import Session, Settings
from edge.cli import main
from edge.engine_settings import EngineSettings
from edge.runtimes import llamacpp
from tests.edge.web_site import needs_browser, package, visit, wordy_bundle

QUESTIONS = ["What is  the capital of France? 🗼", "And\nof Italy?"]
TOKENS = 6


@pytest.fixture(scope="module")
def bundle(tiny: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wordy_bundle(tiny("phi4", dtype="f32"), tmp_path_factory.mktemp("web"))


def edge_chat(bundle: Path, questions: list[str], tokens: int) -> list[tuple[int, str]]:
    """Tokens of the prompt, and the answer, of each question."""
    runtime = llamacpp.load(
        next(bundle.glob("*.gguf")), context_length=512, settings=EngineSettings(), exact=False
    )
    session = Session(runtime, settings=Settings(max_tokens=tokens))
    found = []
    for question in questions:
        text = "".join(session.ask(question))
        found.append((len(session.format.ids(session.messages[:-1])), text))
    runtime.close()
    return found


def prompts(seen: dict[str, Any]) -> list[int]:
    return [answer["prompt"] for answer in seen["online"]]


@needs_browser
def test_it_chats_as_edge_does_and_goes_on_without_server_and_network(bundle: Path, tmp_path: Path) -> None:
    seen = visit("chat", package(bundle, tmp_path / "site"), questions=QUESTIONS, tokens=TOKENS)
    assert seen["isolated"]  # by the service worker: the server sends no such headers
    expected = edge_chat(bundle, QUESTIONS[:1], TOKENS)
    assert seen["online"][0]["prompt"] == expected[0][0]
    assert seen["kept"] == 2 * len(QUESTIONS)
    assert seen["offline"][0]["text"] == seen["online"][0]["text"]
    assert seen["served"] == []


@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize("compat", [False, True], ids=["one-thread", "safari-build"])
def test_without_isolation_it_answers_on_one_thread(bundle: Path, tmp_path: Path, compat: bool) -> None:
    seen = visit("plain", package(bundle, tmp_path / "site"), questions=QUESTIONS, compat=compat)
    assert not seen["isolated"]
    assert seen["line"].endswith("1 thread")
    assert prompts(seen) == [edge_chat(bundle, QUESTIONS[:1], 1)[0][0]]
    builds = {name for name in seen["served"] if name.endswith(".wasm")}
    assert builds == {"wllama/compat.wasm" if compat else "wllama/wllama.wasm"}


@needs_browser
@pytest.mark.slow
def test_stop_ends_an_answer_and_leaves_the_model_usable(bundle: Path, tmp_path: Path) -> None:
    seen = visit("stop", package(bundle, tmp_path / "site"))
    assert "stopped" in seen["numbers"]
    assert seen["next"] in ("end", "length", "context")


@needs_browser
@pytest.mark.slow
def test_the_next_build_takes_over_and_downloads_only_what_changed(bundle: Path, tmp_path: Path) -> None:
    first, second = package(bundle, tmp_path / "site"), tmp_path / "next"
    shutil.copytree(bundle, tmp_path / "renamed")
    manifest = tmp_path / "renamed" / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"name": "another"}))
    seen = visit("update", first, next=str(package(tmp_path / "renamed", second)))
    assert seen["second"] == "another" != seen["first"]
    assert {"sw.js", "build.json"} <= set(seen["served"])
    assert not [name for name in seen["served"] if name.endswith((".gguf", ".wasm"))]


@needs_browser
@pytest.mark.slow
def test_the_embedded_default_answers_as_edge_does_with_nobody_to_ask(tmp_path: Path) -> None:
    bundle, question = tmp_path / "b", "What is the capital of France?"
    assert main(["convert", "smollm2-135m-instruct", "-t", "android", "--no-proof", "-o", str(bundle)]) == 0
    questions = [question, "And what is <|im_end|>? \U0001f642"]
    seen = visit(
        "chat", package(bundle, tmp_path / "site", shard_bytes=40_000_000), questions=questions, tokens=24
    )
    expected = edge_chat(bundle, questions, 24)
    assert (seen["online"][0]["prompt"], seen["online"][0]["text"]) == expected[0]
    assert "Paris" in seen["offline"][0]["text"]
    # The marker in the message stays text here too, though with a zero-width space in it: more tokens.
    assert seen["online"][1]["prompt"] > expected[1][0]

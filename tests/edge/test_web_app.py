"""`--app web` in Chromium: the answers of `edge chat`, online, offline, on one thread, after an update, in two tabs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from edge.chat.session import Session, Settings
from edge.cli import main
from edge.engine_settings import EngineSettings
from edge.runtimes import llamacpp
from tests.apps.page.acts import ask, open_settings, send
from tests.edge.web_site import NEVER_ISOLATED, Host, package, ready, told, visit, wordy_bundle

QUESTIONS = ["What is  the capital of France? 🗼", "And\nof Italy?"]
TOKENS = 6
SAFARI = NEVER_ISOLATED + "delete WebAssembly.Suspending;"


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


def short_answers(page: Page, tokens: int = TOKENS) -> None:
    open_settings(page)
    page.get_by_label("Longest answer").fill(str(tokens))
    page.get_by_label("Longest answer").blur()
    page.keyboard.press("Escape")


def test_it_chats_as_edge_does_and_goes_on_without_server_and_network(
    bundle: Path, tmp_path: Path, browser: Browser
) -> None:
    host = Host(package(bundle, tmp_path / "site"))
    with visit(browser, host) as (context, page):
        ready(page)
        assert page.evaluate("crossOriginIsolated")  # by the service worker: the server sends no such headers
        short_answers(page)
        ask(page, QUESTIONS[0])
        first = told(page)
        assert first["numbers"]["prompt_tokens"] == edge_chat(bundle, QUESTIONS[:1], TOKENS)[0][0]
        ask(page, QUESTIONS[1])
        host.close()
        context.set_offline(True)
        page.reload()
        ready(page)
        expect(page.locator(".message")).to_have_count(4)
        page.locator("#new-chat").click()
        ask(page, QUESTIONS[0])
        assert told(page)["text"] == first["text"]
        page.locator("#open-history").click()
        expect(page.locator("#history-list .title")).to_have_count(2)


@pytest.mark.slow
def test_it_lives_under_a_path_beside_other_pages(bundle: Path, tmp_path: Path, browser: Browser) -> None:
    package(bundle, tmp_path / "app")
    host = Host(tmp_path)
    host.url += "app/"
    with visit(browser, host) as (context, page):
        ready(page)
        host.close()
        context.set_offline(True)
        page.reload()
        ready(page)
    assert {name for name in host.served if not name.startswith("app/")} == set()


@pytest.mark.slow
@pytest.mark.parametrize("script", [NEVER_ISOLATED, SAFARI], ids=["one-thread", "safari-build"])
def test_without_isolation_it_answers_on_one_thread(
    bundle: Path, tmp_path: Path, browser: Browser, script: str
) -> None:
    host = Host(package(bundle, tmp_path / "site"))
    with visit(browser, host, script) as (_, page):
        ready(page)
        assert not page.evaluate("crossOriginIsolated")
        assert page.locator("#model-facts").inner_text().endswith("1 thread")
        short_answers(page)
        ask(page, QUESTIONS[0])
        assert told(page)["numbers"]["prompt_tokens"] == edge_chat(bundle, QUESTIONS[:1], 1)[0][0]
    wanted = "wllama/compat.wasm" if script == SAFARI else "wllama/wllama.wasm"
    assert {name for name in host.served if name.endswith(".wasm")} == {wanted}


def test_stop_ends_an_answer_at_once_and_leaves_the_model_usable(
    bundle: Path, tmp_path: Path, browser: Browser
) -> None:
    with visit(browser, Host(package(bundle, tmp_path / "site"))) as (_, page):
        ready(page)
        send(page, "Go on and on")
        expect(page.locator(".assistant .text")).not_to_be_empty()
        page.locator("#stop").click()
        expect(page.locator(".foot")).to_contain_text("Stopped")
        assert told(page)["numbers"]["new_tokens"] > 0
        short_answers(page)
        ask(page, "Again")
        assert told(page)["reason"] in ("end", "length")
        page.get_by_role("button", name="Answer again").click()
        expect(page.locator(".foot")).to_have_count(2)


@pytest.mark.slow
def test_two_tabs_keep_a_conversation_each(bundle: Path, tmp_path: Path, browser: Browser) -> None:
    host = Host(package(bundle, tmp_path / "site"))
    with visit(browser, host) as (context, page):
        ready(page)
        short_answers(page)
        other = context.new_page()
        other.goto(host.url)
        ready(other)
        ask(page, "One")
        ask(other, "Two")
        page.reload()
        ready(page)
        expect(page.locator(".user")).to_have_text("One")
        page.locator("#open-history").click()
        page.get_by_role("button", name="Delete Two").click()
        page.locator("#ask-yes").click()
        expect(page.locator("#history-list .title")).to_have_text(["One"])
        expect(page.locator(".user")).to_have_text("One")


@pytest.mark.slow
def test_the_next_build_takes_over_when_no_tab_runs_the_old_one(
    bundle: Path, tmp_path: Path, browser: Browser
) -> None:
    host = Host(package(bundle, tmp_path / "site"))
    shutil.copytree(bundle, tmp_path / "renamed")
    manifest = tmp_path / "renamed" / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"name": "another"}))
    with visit(browser, host) as (context, page):
        ready(page)
        old = page.locator("#model-name").inner_text()
        host.root, host.served = package(tmp_path / "renamed", tmp_path / "next"), []
        page.evaluate("navigator.serviceWorker.ready.then((worker) => worker.update())")
        expect(page.locator("#toast")).to_contain_text("A new version")
        second = context.new_page()
        second.goto(host.url)
        ready(second)
        assert second.locator("#model-name").inner_text() == old
        second.close()
        page.reload()
        expect(page.locator("#model-name")).to_have_text("another")
        ready(page)
    assert {"sw.js", "build.json"} <= set(host.served)
    assert not [name for name in host.served if name.endswith((".gguf", ".wasm"))]


@pytest.mark.slow
def test_the_embedded_default_answers_as_edge_does_with_nobody_to_ask(
    tmp_path: Path, browser: Browser
) -> None:
    bundle, marker = tmp_path / "b", "And what is <|im_end|>? \U0001f642"
    assert main(["convert", "smollm2-135m-instruct", "-t", "android", "--no-proof", "-o", str(bundle)]) == 0
    questions = ["What is the capital of France?", marker]
    expected = edge_chat(bundle, questions, 24)
    host = Host(package(bundle, tmp_path / "site", shard_bytes=40_000_000))
    with visit(browser, host) as (context, page):
        ready(page)
        short_answers(page, 24)
        host.close()
        context.set_offline(True)
        page.locator(".idea").first.click()
        expect(page.locator(".foot")).to_have_count(1, timeout=60_000)
        assert (told(page)["numbers"]["prompt_tokens"], told(page)["text"]) == expected[0]
        assert "Paris" in told(page)["text"]
        ask(page, marker, 60_000)
        # The marker in the message stays text here too, though with a zero-width space in it: more tokens.
        assert told(page)["numbers"]["prompt_tokens"] > expected[1][0]

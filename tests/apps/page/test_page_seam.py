"""The page as the phone's WebView holds it: Google's origin for assets, EdgeHost and EdgeShell, and no network."""

from __future__ import annotations

import json
import mimetypes
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.apps.host_build import ANDROID
from tests.apps.page.acts import send

ORIGIN = "https://appassets.androidplatform.net/"
INTERFACES = """
window.calls = [];
window.EdgeHost = {request: (json) => calls.push(['request', JSON.parse(json)])};
window.EdgeShell = {};
for (const name of ['pick', 'bars', 'copy']) EdgeShell[name] = (...given) => calls.push([name, ...given]);
"""
MODEL = {
    "id": "m",
    "name": "M",
    "origin": "embedded",
    "size": 1,
    "needed_bytes": 2,
    "context": 8,
    "problem": None,
}
MEMORY = {"process_bytes": 1, "available_bytes": 2, "total_bytes": 3, "context": 8, "variant": "v"}
READY = {
    "type": "state", "phase": "ready", "model": MODEL, "conversation": "c", "title": "", "partial": None,
    "plain": False, "messages": [], "memory": MEMORY,
}  # fmt: skip


@pytest.fixture
def phone(browser: Browser) -> Iterator[Page]:
    asked: list[str] = []

    def answer(route: Route) -> None:
        asked.append(route.request.url)
        file = ANDROID / route.request.url.removeprefix(ORIGIN)
        route.fulfill(body=file.read_bytes(), content_type=mimetypes.guess_type(file.name)[0])

    page = browser.new_page()
    page.route("**/*", answer)
    page.add_init_script(INTERFACES)
    page.goto(f"{ORIGIN}www/index.html")
    yield page
    page.close()
    assert all(url.startswith(f"{ORIGIN}www/") for url in asked)


def calls(page: Page) -> list[list[object]]:
    return page.evaluate("calls.splice(0)")


def tell(page: Page, **event: object) -> None:
    page.evaluate(f"window.edge.onEvent({json.dumps(event)})")


def test_requests_and_events(phone: Page) -> None:
    assert calls(phone) == [["bars", False], ["request", {"type": "hello"}]]
    tell(phone, **READY)
    send(phone, "Hi")
    assert calls(phone) == [["request", {"type": "chat", "text": "Hi"}]]
    tell(phone, **READY | {"phase": "answering", "messages": [{"role": "user", "text": "Hi"}], "partial": ""})
    tell(phone, type="piece", text="**Hel")
    tell(phone, type="piece", text="lo**")
    expect(phone.locator(".live strong")).to_have_text("Hello")
    phone.locator("#stop").click()
    assert calls(phone) == [["request", {"type": "stop"}]]


def test_the_device_opens_files_colours_its_bars_and_keeps_the_clipboard(phone: Page) -> None:
    calls(phone)
    tell(
        phone, **READY | {"messages": [{"role": "user", "text": "Hi"}, {"role": "assistant", "text": "`a`"}]}
    )
    phone.get_by_label("Copy answer").click()
    phone.locator("#open-models").click()
    phone.locator("#open-file").click()
    phone.emulate_media(color_scheme="dark")
    phone.keyboard.press("Escape")
    assert [call for call in calls(phone) if call[0] != "request"] == [
        ["copy", "`a`"],
        ["pick"],
        ["bars", True],
    ]


def test_a_model_that_was_freed_in_the_background_is_loaded_again(phone: Page) -> None:
    models = {"type": "models", "models": [MODEL], "current": None}
    empty = READY | {"phase": "empty", "model": None}
    for _ in range(2):
        calls(phone)
        phone.evaluate("window.edgeShown()")
        tell(phone, **empty)
        tell(phone, **models)
        assert calls(phone)[-1] == ["request", {"type": "load", "model": "m"}]
        tell(phone, **READY)

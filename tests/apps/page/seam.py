"""The page as the phone's WebView holds it: Google's origin for assets, EdgeHost and EdgeShell, and no network."""

from __future__ import annotations

import json
import mimetypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, Page, Route

from tests.apps.host_build import ANDROID

ORIGIN = "https://appassets.androidplatform.net/"
INTERFACES = """
window.calls = [];
window.EdgeHost = {request: (json) => calls.push(['request', JSON.parse(json)])};
window.EdgeShell = {};
for (const name of ['pick', 'bars', 'copy']) EdgeShell[name] = (...given) => calls.push([name, ...given]);
"""
MODEL = {
    "id": "m", "name": "M", "origin": "embedded", "size": 1, "needed_bytes": 2, "context": 8, "problem": None,
}  # fmt: skip
MEMORY = {"process_bytes": 1, "available_bytes": 2, "total_bytes": 3, "context": 8, "variant": "v"}
READY: dict[str, Any] = {
    "type": "state", "phase": "ready", "model": MODEL, "conversation": "c", "title": "", "partial": None,
    "plain": False, "messages": [], "memory": MEMORY,
}  # fmt: skip


@contextmanager
def opened(
    browser: Browser, path: str = "www/index.html", script: str = "", **context: Any
) -> Iterator[Page]:
    """The page at its address on the phone. script: run before it. Everything that it asks for must be its own."""
    asked: list[str] = []
    errors: list[str] = []

    def answer(route: Route) -> None:
        asked.append(route.request.url)
        file = ANDROID / route.request.url.removeprefix(ORIGIN).partition("#")[0]
        route.fulfill(body=file.read_bytes(), content_type=mimetypes.guess_type(file.name)[0])

    made = browser.new_context(viewport={"width": 412, "height": 915}, **context)
    page = made.new_page()
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.route("**/*", answer)
    page.add_init_script(INTERFACES + script)
    page.goto(ORIGIN + path)
    yield page
    made.close()
    assert all(url.startswith(f"{ORIGIN}www/") for url in asked)
    assert errors == []


def calls(page: Page) -> list[list[object]]:
    """What the page has asked of the phone since the last time."""
    found: list[list[object]] = page.evaluate("calls.splice(0)")
    return found


def tell(page: Page, **event: object) -> None:
    page.evaluate(f"window.edge.onEvent({json.dumps(event)})")


def question(text: str) -> dict[str, object]:
    return {"role": "user", "text": text}


def answer(text: str) -> dict[str, object]:
    return {"role": "assistant", "text": text}

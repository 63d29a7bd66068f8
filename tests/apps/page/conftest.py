"""The app's page in Chromium at a phone's size, over the app's own controller, C and llama.cpp."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, ViewportSize, expect

from tests.apps.conftest import CONTEXT, describe
from tests.apps.host_app import App, embed, run
from tests.apps.host_build import Host
from tests.apps.page.acts import PATIENCE_MS

PORTRAIT, LANDSCAPE = ViewportSize(width=412, height=915), ViewportSize(width=915, height=412)
Open = Callable[..., Page]


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """`open_page(url, **context)`: the page on a phone. An error in its scripts, or a breach of its policy, fails."""
    errors: list[str] = []
    with ExitStack() as stack:

        def open(url: str, **context: Any) -> Page:
            options = {"viewport": PORTRAIT, "is_mobile": True, "has_touch": True} | context
            made = browser.new_context(**options, permissions=["clipboard-read", "clipboard-write"])
            stack.callback(made.close)
            page = made.new_page()
            page.set_default_timeout(PATIENCE_MS)
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.on("console", lambda told: errors.append(told.text) if "violates" in told.text else None)
            page.goto(url)
            return page

        yield open
    assert errors == []


@pytest.fixture(scope="module")
def app(host: Host, roomy_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """The app with a random model in it."""
    folder = tmp_path_factory.mktemp("phone")
    embed(folder, roomy_gguf, describe(roomy_gguf, name="Tiny", context=CONTEXT))
    with run(host, folder) as app:
        yield app


@pytest.fixture
def phone(app: App, open_page: Open) -> Page:
    """The page with the model loaded, short answers, and no conversation yet."""
    app.send("delete", all=True)
    app.send("settings", values={"max_tokens": 12, "seed": 1, "temperature": 0, "system": ""})
    page = open_page(app.url)
    expect(page.locator(".idea").first).to_be_visible()
    return page

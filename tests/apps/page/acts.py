"""What a person does on the page."""

from __future__ import annotations

import time

from playwright.sync_api import FloatRect, Page, expect

PATIENCE_MS = 30_000.0


def box(page: Page, selector: str) -> FloatRect:
    """Where a visible element lies, in CSS pixels."""
    found = page.locator(selector).bounding_box()
    assert found is not None, f"{selector} is not visible"
    return found


def wait_until(page: Page, expression: str) -> None:
    """Until a JavaScript expression is true. (Playwright's own wait is an `eval`, which the page's policy refuses.)"""
    end = time.monotonic() + PATIENCE_MS / 1000
    while not page.evaluate(expression):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(50)


def send(page: Page, text: str) -> None:
    page.locator("#draft").fill(text)
    page.locator("#send").click()


def ask(page: Page, text: str, patience_ms: float = PATIENCE_MS) -> None:
    """Send, and wait for the whole answer."""
    before = page.locator(".assistant .foot").count()
    send(page, text)
    expect(page.locator(".assistant .foot")).to_have_count(before + 1, timeout=patience_ms)


def questions(page: Page) -> list[str]:
    return page.locator(".message.user").all_inner_texts()


def long_answers(page: Page) -> None:
    """Answers of a minute: long enough to do something meanwhile."""
    page.evaluate("import('/js/bridge.js').then((b) => b.request('settings', {values: {max_tokens: 20000}}))")


def open_settings(page: Page) -> None:
    page.locator("#open-history").click()
    page.locator("#open-settings").click()
    expect(page.locator("#settings")).to_be_visible()

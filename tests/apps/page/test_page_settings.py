"""The settings sheet: what a person changes there holds at once, and stays."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Page, expect

from tests.apps.host_app import App
from tests.apps.page.acts import ask, open_settings


def values(app: App, **wanted: Any) -> dict[str, Any]:
    """The app's settings once they hold `wanted`."""
    app.send("settings")
    while True:
        found: dict[str, Any] = app.last("settings")["values"]
        if wanted.items() <= found.items():
            return found


def test_settings_reach_the_engine(phone: Page, app: App) -> None:
    open_settings(phone)
    phone.get_by_label("System prompt").fill("Be brief.")
    phone.get_by_label("Longest answer").fill("3")
    phone.get_by_label("Longest answer").blur()
    phone.keyboard.press("Escape")
    ask(phone, "Hello")
    expect(phone.locator(".foot .numbers")).to_contain_text("Cut at the longest answer allowed · ")
    expect(phone.locator(".foot .numbers")).to_contain_text("3 tokens")
    values(app, max_tokens=3, system="Be brief.")


def test_what_is_typed_holds_when_the_sheet_closes(phone: Page, app: App) -> None:
    open_settings(phone)
    phone.get_by_label("System prompt").press_sequentially("Short.")
    assert phone.evaluate("window.edgeBack()") is True
    values(app, system="Short.")
    open_settings(phone)
    phone.get_by_label("Temperature").focus()
    phone.keyboard.press("ArrowRight")
    expect(phone.locator("output").first).to_have_text("0.05")
    phone.keyboard.press("Escape")
    values(app, system="Short.", temperature=0.05)


def test_a_value_beyond_its_limits_is_not_taken(phone: Page, app: App) -> None:
    open_settings(phone)
    phone.get_by_label("Top-k").fill("5000")
    phone.get_by_label("Top-k").blur()
    phone.get_by_label("Seed").fill("7")
    phone.get_by_label("Seed").blur()
    assert values(app, seed=7)["top_k"] == 0


def test_reset_shows_the_defaults_again(phone: Page, app: App) -> None:
    app.send("settings", values={"temperature": 1.5, "system": "Be brief."})
    open_settings(phone)
    expect(phone.get_by_label("System prompt")).to_have_value("Be brief.")
    phone.get_by_role("button", name="Reset the settings").click()
    expect(phone.get_by_label("System prompt")).to_have_value("")
    expect(phone.locator("output").first).to_have_text("0")
    expect(phone.get_by_role("button", name="Reset the settings")).to_be_focused()

"""Conversations that the page keeps on the device: list, open, rename, delete."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from tests.apps.host_app import App
from tests.apps.page.acts import ask, open_settings, questions


def titles(page: Page) -> list[str]:
    return page.locator("#history-list .title").all_inner_texts()


def test_an_earlier_conversation_opens_again_and_goes_on(phone: Page) -> None:
    ask(phone, "First topic")
    phone.get_by_label("New chat").click()
    expect(phone.locator(".message")).to_have_count(0)
    ask(phone, "Second topic")
    phone.reload()
    expect(phone.locator(".message")).to_have_count(2)
    phone.locator("#open-history").click()
    expect(phone.locator("#history-list .row")).to_have_count(2)
    phone.locator("#history-list").get_by_text("First topic").click()
    expect(phone.locator("#history")).to_be_hidden()
    expect(phone.locator(".message.user")).to_have_text("First topic")
    ask(phone, "And more")
    assert questions(phone) == ["First topic", "And more"]


def test_rename(phone: Page) -> None:
    ask(phone, "A first question")
    phone.locator("#open-history").click()
    phone.get_by_label("Rename A first question").click()
    field = phone.locator("#ask-input")
    expect(field).to_be_focused()
    field.fill("  Plans  ")
    field.press("Enter")
    expect(phone.locator("#history-list .title")).to_have_text("Plans")
    phone.reload()
    assert phone.title() in ("Plans", "edge")
    phone.locator("#open-history").click()
    assert titles(phone) == ["Plans"]


def test_delete_asks_first(phone: Page) -> None:
    ask(phone, "Keep or not")
    phone.locator("#open-history").click()
    phone.get_by_label("Delete Keep or not").click()
    phone.get_by_role("button", name="Cancel").click()
    assert titles(phone) == ["Keep or not"]
    phone.get_by_label("Delete Keep or not").click()
    phone.locator("#ask-yes").click()
    expect(phone.locator("#history-list")).to_contain_text("will be listed here")
    phone.keyboard.press("Escape")
    expect(phone.locator(".message")).to_have_count(0)


def test_delete_all(phone: Page, app: App) -> None:
    ask(phone, "One")
    open_settings(phone)
    phone.get_by_role("button", name="Delete all conversations").click()
    phone.locator("#ask-yes").click()
    expect(phone.locator(".message")).to_have_count(0)
    assert not list((app.folder / "files" / "history").glob("*.json"))


def test_back_closes_what_is_open_and_then_leaves(phone: Page) -> None:
    phone.locator("#open-models").click()
    assert phone.evaluate("window.edgeBack()") is True
    expect(phone.locator("#models")).to_be_hidden()
    assert phone.evaluate("window.edgeBack()") is False

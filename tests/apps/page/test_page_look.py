"""What the page looks like and who can use it: colours, sizes, names, keyboard, writing directions."""

from __future__ import annotations

from itertools import product

import pytest
from playwright.sync_api import Page, ViewportSize, expect

from tests.apps.host_app import App
from tests.apps.page.acts import ask, box, long_answers, open_settings, send, wait_until
from tests.apps.page.conftest import LANDSCAPE, PORTRAIT, Open

SMALLEST = ViewportSize(width=320, height=568)
PANELS = ("#open-history", "#open-models")
CONTRAST = """([ink, ground]) => {
  const light = (name) => {
    const probe = document.createElement('i');
    probe.style.color = `var(${name})`;
    document.body.append(probe);
    const channels = getComputedStyle(probe).color.match(/[\\d.]+/g).slice(0, 3).map((c) => c / 255);
    probe.remove();
    const [r, g, b] = channels.map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const [high, low] = [light(ink), light(ground)].sort((a, b) => b - a);
  return (high + 0.05) / (low + 0.05);
}"""
SMALL = """() => [...document.querySelectorAll('button, input, select, textarea')]
  .filter((e) => e.checkVisibility() && !e.closest('dialog:not([open])'))
  .filter((e) => { const box = e.getBoundingClientRect(); return box.width < 43.9 || box.height < 43.9; })
  .map((e) => e.outerHTML)"""
NAMELESS = """() => [...document.querySelectorAll('button, input, select, textarea, dialog, [role=region]')]
  .filter((e) => !e.hidden && !e.closest('dialog:not([open])'))
  .filter((e) => !(e.ariaLabel || e.innerText.trim() || e.labels?.length || e.getAttribute('aria-labelledby')))
  .map((e) => e.outerHTML)"""
WIDE = """() => [document.scrollingElement, ...document.querySelectorAll('dialog[open], #scroll')]
  .filter((e) => e.scrollWidth > e.clientWidth).map((e) => e.id || e.localName)"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(app: App, open_page: Open, scheme: str) -> None:
    """WCAG AA: 4.5 for text. The focus ring and the sliders are of the accent, for which 3 would do."""
    page = open_page(app.url, color_scheme=scheme)
    assert page.evaluate("document.documentElement.dataset.theme") == scheme
    pairs = [
        *product(("--ink", "--faint", "--accent", "--bad"), ("--ground", "--panel", "--raised")),
        ("--ink", "--bubble"), ("--ink", "--pressed"), ("--on-accent", "--accent"), ("--ground", "--bad"),
        ("--ground", "--ink"), ("--accent", "--bubble"), ("--bad", "--bad-ground"),
    ]  # fmt: skip
    found = {pair: page.evaluate(CONTRAST, pair) for pair in pairs}
    assert {pair: round(ratio, 2) for pair, ratio in found.items() if ratio < 4.5} == {}


def test_a_chosen_theme_outlasts_the_devices_and_a_reload(phone: Page) -> None:
    open_settings(phone)
    phone.get_by_label("Colours").select_option("dark")
    phone.reload()
    assert phone.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(16, 19, 22)"
    open_settings(phone)
    phone.get_by_label("Colours").select_option("system")
    assert phone.evaluate("document.documentElement.dataset.theme") == "light"
    phone.emulate_media(color_scheme="dark")
    wait_until(phone, "document.documentElement.dataset.theme === 'dark'")


def test_every_target_is_44_pixels_and_has_a_name(phone: Page) -> None:
    ask(phone, "Hello")
    for button in PANELS:
        phone.locator(button).click()
        assert phone.evaluate(SMALL) == []
        assert phone.evaluate(NAMELESS) == []
        phone.keyboard.press("Escape")
    open_settings(phone)
    assert phone.evaluate(SMALL) == []
    assert phone.evaluate(NAMELESS) == []


def test_nothing_leaves_the_window_sideways(phone: Page) -> None:
    """Upright, across, the smallest phone; each also with text twice as large."""
    ask(phone, "w" * 300)
    wide = []
    for viewport, percent in product((PORTRAIT, LANDSCAPE, SMALLEST), (100, 200)):
        phone.set_viewport_size(viewport)
        phone.evaluate(f"document.documentElement.style.fontSize = '{percent}%'")
        expect(phone.locator("#draft")).to_be_in_viewport()
        for button in PANELS:
            phone.locator(button).click()
            wide += [(viewport["width"], percent, found) for found in phone.evaluate(WIDE)]
            phone.keyboard.press("Escape")
    assert wide == []


def test_the_keyboard_alone_is_enough(phone: Page) -> None:
    phone.locator("#open-models").focus()
    phone.keyboard.press("Enter")
    expect(phone.locator("#models")).to_be_visible()
    for _ in range(8):
        phone.keyboard.press("Tab")
        assert phone.evaluate(
            "document.activeElement === document.body || !!document.activeElement.closest('#models')"
        )
    phone.keyboard.press("Escape")
    expect(phone.locator("#open-models")).to_be_focused()


def test_the_focus_returns_to_where_it_was(phone: Page) -> None:
    ask(phone, "One")
    phone.get_by_label("New chat").click()
    expect(phone.locator(".message")).to_have_count(0)
    ask(phone, "Two")
    phone.locator("#open-history").click()
    phone.get_by_label("Rename Two").click()
    phone.keyboard.press("Enter")
    expect(phone.get_by_label("Rename Two")).to_be_focused()
    phone.get_by_label("Delete One").click()
    phone.locator("#ask-yes").click()
    expect(phone.locator("#history [data-close]")).to_be_focused()
    phone.locator("#open-settings").click()
    phone.keyboard.press("Escape")
    expect(phone.locator("#open-history")).to_be_focused()


def test_reduced_motion_stops_every_animation(phone: Page) -> None:
    phone.emulate_media(reduced_motion="reduce")
    long_answers(phone)
    send(phone, "Hello")
    expect(phone.locator(".live .text")).not_to_be_empty()
    phone.locator("#open-history").click()
    assert phone.evaluate("document.getAnimations().filter((a) => a.playState === 'running').length") == 0


def test_bars_and_cutouts_do_not_cover_the_page(phone: Page) -> None:
    phone.evaluate("window.edgeInsets(40, 0, 24, 30)")
    button, field = box(phone, "#open-history"), box(phone, ".field")
    assert button["y"] >= 40
    assert button["x"] >= 30
    assert field["y"] + field["height"] <= PORTRAIT["height"] - 24


def test_text_from_right_to_left_starts_at_the_right(phone: Page) -> None:
    ask(phone, "שלום, מה שלומך?")
    assert phone.evaluate("getComputedStyle(document.querySelector('.user .text')).direction") == "rtl"
    phone.locator("#draft").fill("مرحبا")
    assert phone.locator("#draft").evaluate("(e) => e.matches(':dir(rtl)')")

"""An answer while it is being written, and long conversations."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.apps.page.acts import wait_until
from tests.apps.page.seam import READY, answer, opened, question, tell

AT_END = "(({scrollHeight, scrollTop, clientHeight}) => scrollHeight - scrollTop - clientHeight < 2)(scroll)"
WATCH = """() => {
  window.scroll = document.getElementById('scroll');
  window.changed = new Set();
  const article = (node) => node.parentElement?.closest('article');
  const all = [...document.querySelectorAll('article')];
  new MutationObserver((changes) => changes.forEach(({target}) => {
    const found = target.closest?.('article') ?? article(target);
    if (found) changed.add(all.indexOf(found));
  })).observe(document.getElementById('messages'),
              {childList: true, subtree: true, attributes: true, characterData: true});
}"""


@pytest.fixture
def phone(browser: Browser) -> Iterator[Page]:
    with opened(browser, has_touch=True, is_mobile=True) as page:
        page.evaluate("window.scroll = document.getElementById('scroll')")
        yield page


def answering(page: Page, *messages: dict[str, object]) -> None:
    tell(page, **READY | {"phase": "answering", "messages": [*messages, question("Go on")], "partial": ""})


def say(page: Page, text: str) -> None:
    tell(page, type="piece", text=text)


def drawn(page: Page) -> None:
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def test_marks_do_not_flash(phone: Page) -> None:
    """A bold word is bold from its first letter, and no sign of a mark, item or heading is ever seen."""
    answering(phone)
    seen = ""
    for piece in (
        "Some ",
        "*",
        "*bold",
        " word",
        "*",
        "*",
        " and ",
        "`co",
        "de",
        "`",
        ".\n",
        "\n",
        "-",
        " item",
        "\n",
        "#",
    ):
        say(phone, piece)
        drawn(phone)
        seen += phone.locator(".live .text").inner_text()
        if piece == "*bold":
            expect(phone.locator(".live strong")).to_have_text("bold")
    assert not set("*`-#") & set(seen)
    say(phone, " Heading")
    expect(phone.locator(".live h3")).to_have_text("Heading")


def test_emoji_that_come_in_pieces_are_whole(phone: Page) -> None:
    answering(phone)
    for piece in ("👩", "🏽", "\u200d", "🚀", " ", "👨", "\u200d", "👩", "\u200d", "👧"):
        say(phone, piece)
        drawn(phone)
    expect(phone.locator(".live .text")).to_have_text("👩🏽‍🚀 👨‍👩‍👧")


def test_one_new_piece_changes_nothing_of_two_hundred_messages(phone: Page) -> None:
    history = [
        question("Why?"),
        answer("Because **so**.\n\n```python\nprint(1)\n```\n\n1. One\n2. Two"),
    ] * 100
    answering(phone, *history)
    expect(phone.locator(".message")).to_have_count(202)
    phone.evaluate(WATCH)
    for word in range(20):
        say(phone, f"word {word} ")
        drawn(phone)
    assert phone.evaluate("[...changed]") == [201]
    assert phone.evaluate(AT_END)


def test_the_view_stays_at_the_end_whatever_grows(phone: Page) -> None:
    answering(phone, *[question("Why?"), answer("Because.\n\n" * 9)] * 3)
    drawn(phone)
    for piece in ("A line.\n\n" * 12, "```python\n" + "x = 1\n" * 30, "```\n\nEnd"):
        say(phone, piece)
        drawn(phone)
        assert phone.evaluate(AT_END)
        expect(phone.locator("#latest")).to_be_hidden()
    for height in (420, 915):  # the keyboard comes and goes
        phone.set_viewport_size({"width": 412, "height": height})
        wait_until(phone, AT_END)
    phone.evaluate("scroll.scrollTop -= 300")
    expect(phone.locator("#latest")).to_be_visible()
    say(phone, " and more\n\n" * 20)
    drawn(phone)
    assert not phone.evaluate(AT_END)


def test_a_screen_reader_hears_an_answer_once_and_whole(phone: Page) -> None:
    tell(phone, **READY)
    answering(phone)
    told = phone.locator("#announce")
    expect(told).to_have_text("Answering")
    for piece in ("It is ", "**this**", ".\n\n- one"):
        say(phone, piece)
        drawn(phone)
        expect(told).to_have_text("Answering")
        expect(phone.locator(".live")).to_have_attribute("aria-busy", "true")
    text = "It is **this**.\n\n- one"
    tell(phone, type="done", reason="end", text=text, numbers=None, memory=None)
    tell(phone, **READY | {"messages": [question("Go on"), answer(text)]})
    expect(told).to_have_text("It is this. one")
    assert phone.locator("[aria-live], [role=status], [role=alert], [role=log]").count() == 1


@pytest.mark.parametrize(
    "text", ["*a " * 30_000, "**a `b " * 10_000, "`" * 50_000 + "x", "* " * 30_000], ids=range(4)
)
def test_hostile_repetition_ends_while_it_is_written(phone: Page, text: str) -> None:
    answering(phone)
    say(phone, text)
    drawn(phone)
    expect(phone.locator(".live")).to_be_visible()

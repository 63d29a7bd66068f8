"""What the page asks of the phone and shows of what the phone tells it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.apps.host_build import ANDROID
from tests.apps.page.acts import send, wait_until
from tests.apps.page.seam import MODEL, READY, answer, calls, opened, question, tell

CODES = re.findall(
    r"^\| `(\w+)` \| ", (ANDROID / "PROTOCOL.md").read_text().partition("## Errors")[2], re.MULTILINE
)
WHILE_LOADED = {"busy", "too_long", "bad_request"}
"""They leave the model loaded: a line above the field tells of them."""


@pytest.fixture
def phone(browser: Browser) -> Iterator[Page]:
    with opened(browser) as page:
        yield page


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
    wait_until(phone, "document.documentElement.dataset.theme === 'dark'")
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


def test_every_error_of_the_protocol_has_its_words(phone: Page) -> None:
    assert len(CODES) == 13
    for code in sorted(set(CODES) - WHILE_LOADED):
        tell(phone, **READY | {"phase": "empty", "model": None})
        tell(
            phone,
            type="error",
            code=code,
            message=f"the cause of {code}",
            hint=f"a way out of {code}",
            request="load",
        )
        screen = phone.locator("#screen")
        expect(screen.locator("[role=alert]")).to_have_text(f"The cause of {code}.")
        expect(screen.locator(".hint")).to_have_text(f"A way out of {code}.")
        assert screen.locator("h1").inner_text() != "Something went wrong", code
        assert screen.locator("button").count() > 0 or code == "library"
    for code in sorted(WHILE_LOADED):
        tell(phone, **READY)
        tell(
            phone,
            type="error",
            code=code,
            message=f"the cause of {code}",
            hint=f"a way out of {code}",
            request="chat",
        )
        expect(phone.locator("#toast")).to_have_text(f"The cause of {code}. A way out of {code}.")
        expect(phone.locator("#announce")).to_have_text(f"The cause of {code}. A way out of {code}.")


def test_a_notice_stands_above_the_field_and_goes(phone: Page) -> None:
    tell(phone, **READY)
    phone.locator("#draft").fill("a line\n" * 12)
    error = {
        "type": "error",
        "code": "too_long",
        "message": "it is long",
        "hint": "shorten it",
        "request": "chat",
    }
    tell(phone, **error)
    notice, field = phone.locator("#toast").bounding_box(), phone.locator(".field").bounding_box()
    assert notice is not None
    assert field is not None
    assert notice["y"] + notice["height"] <= field["y"]
    phone.locator("#toast").click()
    expect(phone.locator("#toast")).to_be_hidden()
    tell(phone, **error)
    tell(phone, **READY | {"conversation": "another"})
    expect(phone.locator("#toast")).to_be_hidden()


def test_a_load_and_a_copy_show_how_far_they_are_and_can_be_stopped(phone: Page) -> None:
    tell(phone, **READY | {"phase": "empty", "model": None})
    for stage in ("copy", "check", "load"):
        tell(phone, type="progress", stage=stage, fraction=0.42, model="file.gguf")
        expect(phone.locator("#screen h1")).to_have_text("file.gguf")
        expect(phone.locator("#screen .hint")).to_contain_text("· 42 %")
    calls(phone)
    phone.locator("#screen button").click()
    assert calls(phone) == [["request", {"type": "stop"}]]


@pytest.mark.parametrize(
    ("path", "messages", "asked"),
    [
        ("www/index.html#restored", [], [["request", {"type": "open", "conversation": "before"}]]),
        ("www/index.html#restored", [question("still here")], []),
        ("www/index.html", [], []),
    ],
    ids=["brought back", "its process lived on", "started"],
)
def test_a_page_that_android_brings_back_opens_the_conversation_that_was_open(
    browser: Browser, path: str, messages: list[object], asked: list[object]
) -> None:
    with opened(browser, path, "localStorage.setItem('conversation', 'before');") as page:
        calls(page)
        tell(page, **READY | {"messages": messages})
        assert calls(page) == asked
        tell(page, **READY | {"messages": [question("Hi"), answer("Hello")], "conversation": "now"})
        assert calls(page) == []
        assert page.evaluate("localStorage.getItem('conversation')") == "now"
        tell(page, **READY)
        assert page.evaluate("localStorage.getItem('conversation')") is None


def test_the_policy_lets_nothing_in_but_the_pages_own_files() -> None:
    policy = re.search(
        r'Content-Security-Policy" content="([^"]+)"', (ANDROID / "www" / "index.html").read_text()
    )
    assert policy is not None
    rules = dict(rule.split(" ", 1) for rule in policy[1].split("; "))
    assert rules.pop("img-src") == "data:"
    assert {name: rules[name] for name in ("default-src", "base-uri", "form-action")} == dict.fromkeys(
        ("default-src", "base-uri", "form-action"), "'none'"
    )
    assert set(rules.values()) == {"'none'", "'self'"}

"""A conversation on the app's page, as a person holds it."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from tests.apps.host_app import App
from tests.apps.page.acts import ask, box, long_answers, questions, send, wait_until
from tests.apps.page.conftest import LANDSCAPE, PORTRAIT, Open

END = "((e) => e.scrollHeight - e.scrollTop - e.clientHeight < 40)(document.getElementById('scroll'))"


def test_a_question_is_answered_with_speed_and_memory(phone: Page) -> None:
    ask(phone, "Hello")
    assert questions(phone) == ["Hello"]
    expect(phone.locator(".assistant .text")).not_to_be_empty()
    expect(phone.locator(".foot .numbers")).to_contain_text("tok/s · 12 tokens · context")
    expect(phone.locator("#model-facts")).to_contain_text("tok/s · 1.0 MB")
    expect(phone.locator("#draft")).to_have_value("")
    expect(phone.locator("#announce")).not_to_be_empty()


def test_the_answer_grows_as_it_is_written_and_stop_keeps_it(phone: Page) -> None:
    long_answers(phone)
    send(phone, "Go on")
    answer = phone.locator(".assistant .text")
    expect(answer).not_to_be_empty()
    first = len(answer.inner_text())
    wait_until(phone, f"document.querySelector('.assistant .text').innerText.length > {first}")
    expect(phone.locator("#send")).to_be_hidden()
    phone.locator("#stop").click()
    expect(phone.locator(".foot .numbers")).to_contain_text("Stopped")
    assert len(answer.inner_text()) > first
    phone.locator("#draft").fill("And again")
    expect(phone.locator("#send")).to_be_enabled()


def test_a_reload_in_the_middle_of_an_answer_joins_it(phone: Page) -> None:
    long_answers(phone)
    send(phone, "Go on")
    expect(phone.locator(".assistant .text")).not_to_be_empty()
    phone.locator("#draft").fill("not sent yet")
    phone.reload()
    expect(phone.locator(".live .text")).not_to_be_empty()
    expect(phone.locator("#draft")).to_have_value("not sent yet")
    phone.locator("#stop").click()
    expect(phone.locator(".foot")).to_be_visible()
    assert questions(phone) == ["Go on"]


def test_hidden_the_app_stops_answering(phone: Page) -> None:
    long_answers(phone)
    send(phone, "Go on")
    expect(phone.locator(".assistant .text")).not_to_be_empty()
    phone.evaluate("window.edgeHidden()")
    expect(phone.locator(".foot .numbers")).to_contain_text("Stopped")


def test_rotation_keeps_everything(phone: Page) -> None:
    ask(phone, "Hello")
    phone.locator("#draft").fill("half a thought")
    answer = phone.locator(".assistant .text").inner_text()
    for viewport in (LANDSCAPE, PORTRAIT):
        phone.set_viewport_size(viewport)
        expect(phone.locator("#draft")).to_be_in_viewport()
        expect(phone.locator("#draft")).to_have_value("half a thought")
        expect(phone.locator(".foot")).to_be_in_viewport()
        assert phone.locator(".assistant .text").inner_text() == answer


def test_rotation_does_not_disturb_an_answer(phone: Page) -> None:
    long_answers(phone)
    send(phone, "a line\n" * 40)
    expect(phone.locator(".assistant .text")).not_to_be_empty()
    phone.locator("#draft").fill("half a thought")
    for viewport in (LANDSCAPE, PORTRAIT):
        phone.set_viewport_size(viewport)
        length = len(phone.locator(".live .text").inner_text())
        wait_until(phone, f"document.querySelector('.live .text').innerText.length > {length}")
        wait_until(phone, END)
        expect(phone.locator("#draft")).to_have_value("half a thought")
    phone.locator("#stop").click()
    expect(phone.locator(".foot .numbers")).to_contain_text("Stopped")


def test_ten_thousand_characters_are_asked_and_answered(phone: Page) -> None:
    text = "Some words of a long letter. " * 345
    phone.locator("#draft").fill(text)
    assert box(phone, ".field")["height"] <= 0.4 * PORTRAIT["height"]
    phone.locator("#send").click()
    expect(phone.locator(".foot")).to_be_in_viewport()
    assert questions(phone) == [text.strip()]


def test_answer_again_replaces_the_answer(phone: Page, app: App) -> None:
    app.send("settings", values={"temperature": 1.5})
    ask(phone, "Hello")
    before = phone.locator(".assistant .text").inner_text()
    phone.get_by_label("Answer again").click()
    wait_until(phone, f"document.querySelector('.assistant .text').innerText !== {before!r}")
    expect(phone.locator(".foot")).to_be_visible()
    assert len(questions(phone)) == 1


def test_a_question_that_is_too_long_comes_back_with_the_reason(phone: Page) -> None:
    question = "word " * 40_000
    send(phone, question)
    expect(phone.locator("#toast")).to_be_visible()
    expect(phone.locator("#draft")).to_have_value(question.strip())
    assert questions(phone) == []


def test_copy_takes_the_answer_as_it_was_written(phone: Page) -> None:
    ask(phone, "Hello")
    written = phone.evaluate("import('/js/store.js').then(({store}) => store.messages[1].text)")
    phone.get_by_label("Copy answer").click()
    expect(phone.locator("#announce")).to_have_text("Copied")
    assert phone.evaluate("navigator.clipboard.readText()") == written


def test_enter_sends_from_a_keyboard_and_breaks_the_line_under_a_finger(
    app: App, open_page: Open, phone: Page
) -> None:
    phone.locator("#draft").fill("one")
    phone.locator("#draft").press("Enter")
    expect(phone.locator("#draft")).to_have_value("one\n")
    desk = open_page(app.url, is_mobile=False, has_touch=False)
    desk.locator("#draft").fill("two")
    expect(desk.locator("#send")).to_be_enabled()
    desk.locator("#draft").press("Shift+Enter")
    desk.locator("#draft").press("Enter")
    expect(desk.locator(".foot")).to_be_visible()
    assert questions(desk) == ["two"]


def test_the_view_follows_until_the_person_scrolls_up(phone: Page) -> None:
    long_answers(phone)
    send(phone, "a line\n" * 60)
    box = phone.locator("#scroll")
    wait_until(phone, "document.getElementById('scroll').scrollTop > 200")
    box.evaluate("(e) => { e.scrollTop = 0; }")
    expect(phone.locator("#latest")).to_be_visible()
    phone.locator("#stop").click()
    expect(phone.locator(".foot")).to_have_count(1)
    assert box.evaluate("(e) => e.scrollTop") == 0
    phone.locator("#latest").click()
    expect(phone.locator(".foot")).to_be_in_viewport()

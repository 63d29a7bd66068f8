"""The embedded default, converted for a phone, on the app's page; `--update-snapshots` takes the README's pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from edge.convert import ConvertRequest, convert, plan
from edge.packaging import phone_model
from edge.progress import Silent
from tests.apps.host_app import App, embed, run
from tests.apps.host_build import ANDROID, Host
from tests.apps.page import pictures
from tests.apps.page.acts import ask
from tests.apps.page.conftest import Open

SLOW_MS = 300_000
"""For an answer on a busy machine."""
CONVERSATION = {
    "What is the opposite of hot?": "cold",
    "What is the capital of France?": "Paris",
    "Show me a Python function that checks if a number is even.": "return num % 2 == 0",
}
"""Questions to 135 million parameters, and what the right answer has in it."""


@pytest.mark.slow
def test_the_default_answers(
    host: Host, tmp_path: Path, open_page: Open, browser: Browser, request: pytest.FixtureRequest
) -> None:
    bundle = tmp_path / "bundle"
    convert(plan(ConvertRequest("smollm2-135m-instruct", ("android",), output=bundle, proof=False)), Silent())
    model = phone_model.load(bundle, None, lambda _: None)
    embed(tmp_path, model.gguf, dict(model.description))
    with run(host, tmp_path, proc=Path("/proc")) as app:
        app.send("settings", values={"temperature": 0})
        page = open_page(app.url)
        expect(page.locator(".idea").first).to_be_visible()
        for question, answer in CONVERSATION.items():
            ask(page, question, SLOW_MS)
            expect(page.locator(".assistant .text").last).to_contain_text(answer)
        expect(page.locator(".assistant pre")).to_contain_text("def is_even")
        told = _told(app)
    if request.config.getoption("--update-snapshots"):
        pictures.still(browser, told, ANDROID / "screen.png")
        pictures.film(browser, told, ANDROID / "screen.gif")


def _told(app: App) -> list[pictures.Event]:
    """What the controller has told since the model was loaded."""
    events: list[pictures.Event] = []
    while (
        sum(event["type"] == "done" for event in events) < len(CONVERSATION)
        or events[-1].get("phase") != "ready"
    ):
        events.append(app.events.get(timeout=SLOW_MS / 1000))
    ready = next(at for at, event in enumerate(events) if event.get("phase") == "ready")
    return [event for event in events[ready:] if event["type"] in ("state", "piece", "done")]

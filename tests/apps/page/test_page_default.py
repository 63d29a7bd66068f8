"""The embedded default, converted for a phone, on the app's page; `--update-snapshots` takes the README's picture."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import expect

from edge.convert import ConvertRequest, convert, plan
from edge.packaging import phone_model
from edge.progress import Silent
from tests.apps.host_app import embed, run
from tests.apps.host_build import ANDROID, Host
from tests.apps.page.acts import ask, send
from tests.apps.page.conftest import Open

SLOW_MS = 300_000
"""For an answer on a busy machine."""


@pytest.mark.slow
def test_the_default_answers(
    host: Host, tmp_path: Path, open_page: Open, request: pytest.FixtureRequest
) -> None:
    bundle = tmp_path / "bundle"
    convert(plan(ConvertRequest("smollm2-135m-instruct", ("android",), output=bundle, proof=False)), Silent())
    model = phone_model.load(bundle, None, lambda _: None)
    embed(tmp_path, model.gguf, dict(model.description))
    with run(host, tmp_path, proc=Path("/proc")) as app:
        app.send("settings", values={"temperature": 0})
        page = open_page(app.url, device_scale_factor=2)
        expect(page.locator(".idea").first).to_be_visible()
        ask(page, "What is the capital of France?", SLOW_MS)
        expect(page.locator(".assistant .text")).to_contain_text("Paris")
        send(page, "Write a Python function that adds two numbers.")
        expect(page.locator(".live .text p").first).to_contain_text(".", timeout=SLOW_MS)
        expect(page.locator(".live pre")).to_contain_text("return")
        picture = page.screenshot()
        page.locator("#stop").click()
        expect(page.locator(".foot .numbers").last).to_contain_text("Stopped")
    if request.config.getoption("--update-snapshots"):
        Image.open(BytesIO(picture)).convert("RGB").quantize(64).save(ANDROID / "screen.png", optimize=True)

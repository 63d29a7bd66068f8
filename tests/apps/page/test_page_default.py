"""The embedded default, converted for a phone, on the app's page; `--update-snapshots` takes the README's picture."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import expect

from edge import bundle as bundles
from edge.convert import ConvertRequest, convert, plan
from edge.packaging import turns
from edge.progress import Silent
from tests.apps.conftest import describe
from tests.apps.host_app import embed, run
from tests.apps.host_build import ANDROID, Host
from tests.apps.page.acts import ask
from tests.apps.page.conftest import Open

MODEL = "smollm2-135m-instruct"
SLOW = 300.0
"""Seconds for an answer of 160 tokens on a busy machine."""
LARGEST_PICTURE = 150_000


@pytest.mark.slow
def test_the_default_says_paris(
    host: Host, tmp_path: Path, open_page: Open, request: pytest.FixtureRequest
) -> None:
    convert(plan(ConvertRequest(MODEL, ("android",), output=tmp_path / "bundle", proof=False)), Silent())
    bundle = bundles.load(tmp_path / "bundle")
    template = (bundle.directory / "chat_template.jinja").read_text()
    texts = turns.describe(template, bos_token="<|im_start|>", eos_token="<|im_end|>")
    gguf = bundle.variants[0].path
    licence = "Apache-2.0"
    embed(tmp_path, gguf, describe(gguf, name=MODEL, context=2048, stop=["<|im_end|>"], turns=texts, licence=licence))
    with run(host, tmp_path, proc=Path("/proc")) as app:
        app.send("settings", values={"temperature": 0, "max_tokens": 160})
        page = open_page(app.url, device_scale_factor=2)
        expect(page.locator(".idea").first).to_be_visible()
        ask(page, "What is the capital of France?", SLOW)
        expect(page.locator(".assistant .text")).to_contain_text("Paris")
        ask(page, "Write a Python function that adds two numbers.", SLOW)
        page.evaluate("document.activeElement.blur()")
        picture = page.screenshot()
    assert len(picture) < LARGEST_PICTURE
    if request.config.getoption("--update-snapshots"):
        (ANDROID / "screen.png").write_bytes(picture)

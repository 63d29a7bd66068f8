"""Choosing a model on the page, and the screens for what can be wrong with one."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.apps.conftest import describe
from tests.apps.host_app import embed, push, run
from tests.apps.host_build import Host
from tests.apps.page.conftest import Open


def choose_file(page: Page, button: str, file: Path) -> None:
    with page.expect_file_chooser() as chooser:
        page.locator(button).click()
    chooser.value.set_files(file)


def test_no_model_and_one_opened_from_files(
    host: Host, tiny_gguf: Path, tmp_path: Path, open_page: Open
) -> None:
    with run(host, tmp_path) as app:
        page = open_page(app.url)
        expect(page.locator("#screen h1")).to_have_text("No model yet")
        expect(page.locator("#send")).to_be_disabled()
        broken = tmp_path / "broken.gguf"
        broken.write_bytes(b"not a model")
        choose_file(page, "#screen button", broken)
        expect(page.locator("#screen h1")).to_have_text("This file is damaged")
        expect(page.locator("#screen .cause")).to_contain_text("GGUF")
        choose_file(page, "#screen button:last-of-type", tiny_gguf)
        expect(page.locator("#model-name")).to_have_text("tiny.gguf")
        expect(page.locator("#screen .badge:not(.bad)")).to_be_visible()


def test_picker_switches_deletes_and_remembers(
    host: Host, tiny_gguf: Path, tmp_path: Path, open_page: Open
) -> None:
    embed(tmp_path, tiny_gguf, describe(tiny_gguf, id="small", name="Small"))
    push(tmp_path, tiny_gguf, describe(tiny_gguf, id="large", name="Large"))
    with run(host, tmp_path) as app:
        page = open_page(app.url)
        expect(page.locator("#model-name")).to_have_text("Small")
        page.locator("#open-models").click()
        rows = page.locator("#model-list li")
        expect(rows).to_have_count(2)
        expect(rows.nth(0)).to_contain_text("In the app")
        expect(rows.nth(1)).to_contain_text("Sent by cable")
        expect(page.locator("#models-note")).to_contain_text("memory free")
        assert page.get_by_label("Delete Small").count() == 0
        rows.nth(1).locator(".row").click()
        expect(page.locator(".idea").first).to_be_visible()
        expect(page.locator("#model-name")).to_have_text("Large")
        app.send("unload")
        page.reload()
        expect(page.locator(".idea").first).to_be_visible()
        expect(page.locator("#model-name")).to_have_text("Large")
        page.locator("#open-models").click()
        page.get_by_label("Delete Large").click()
        page.locator("#ask-yes").click()
        expect(rows).to_have_count(1)
        assert not (tmp_path / "pushed" / "large").exists()


def test_not_enough_memory_is_said_and_a_shorter_context_helps(
    host: Host, tiny_gguf: Path, tmp_path: Path, open_page: Open
) -> None:
    embed(tmp_path, tiny_gguf, describe(tiny_gguf, name="Tiny", context=8192, kv_bytes_per_token=1 << 20))
    with run(host, tmp_path, available_mb=2048) as app:
        page = open_page(app.url)
        expect(page.locator("#screen h1")).to_have_text("Not enough memory")
        expect(page.locator("#screen .cause")).to_contain_text("2048 MB are available")
        page.get_by_role("button", name="Use a shorter context").click()
        page.get_by_label("Context").select_option("1024")
        page.get_by_role("button", name="Load the model again").click()
        expect(page.locator(".idea").first).to_be_visible()


@pytest.mark.parametrize(
    ("change", "title"),
    [({"size": 5}, "This file is damaged"), ({"sha256": "0" * 64}, "This file is damaged")],
    ids=["cut", "other bytes"],
)
def test_a_damaged_model_is_said(
    host: Host, tiny_gguf: Path, tmp_path: Path, open_page: Open, change: dict[str, object], title: str
) -> None:
    push(tmp_path, tiny_gguf, describe(tiny_gguf, **change))
    with run(host, tmp_path) as app:
        page = open_page(app.url)
        expect(page.locator("#screen h1")).to_have_text(title)
        expect(page.locator("#screen [role=alert]")).not_to_be_empty()

"""The web app's first visit in Chromium: broken, altered, refused, without room; each told, and none kept half."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.edge.web_site import NEVER_ISOLATED, Host, failure, package, ready, visit, wordy_bundle

NO_STORAGE = "Promise.reject(new DOMException('no', 'SecurityError'))"
REFUSES = "{configurable: true, get() { throw new DOMException('no', 'SecurityError'); }}"
NO_ROOM = "async () => ({ quota: 1000, usage: 0 })"
LACKS = {
    "delete self.WebAssembly;": "This browser cannot run the model",
    "Object.defineProperty(navigator, 'deviceMemory', {value: 0.0001});": "Not enough memory",
    f"if (self.caches) CacheStorage.prototype.open = () => {NO_STORAGE};": "No storage for this page",
    f"if (self.caches) StorageManager.prototype.estimate = {NO_ROOM};": "Not enough storage",
    "Object.defineProperty(self, 'isSecureContext', {value: false});": "This address is not secure",
    f"if (self.caches) Object.defineProperty(self, 'localStorage', {REFUSES});": "No storage for this page",
}


@pytest.fixture(scope="module")
def site(tiny: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("web")
    return package(wordy_bundle(tiny("phi4", dtype="f32"), folder), folder / "site")


def shards(site: Path) -> list[str]:
    return sorted(f"model/{path.name}" for path in (site / "model").iterdir())


def test_an_interrupted_download_goes_on_with_what_is_missing(site: Path, browser: Browser) -> None:
    last = shards(site)[-1]
    host = Host(site, lambda path, data: None if path == last else data)
    with visit(browser, host) as (_, page):
        assert failure(page) == "The download was interrupted"
        host.tamper, host.served = None, []
        page.get_by_role("button", name="Continue").click()
        ready(page)
    assert [name for name in host.served if name.endswith(".gguf")] == [last]


def test_a_stopped_download_goes_on_where_it_was(site: Path, browser: Browser) -> None:
    first, *_, last = shards(site)
    host = Host(site)
    script = (
        f"const get = fetch; self.fetch = (p, o) => p === '{last}' && !self.go ? new Promise((_, no) => "
        "o.signal.addEventListener('abort', () => no(new Error('aborted')))) : get(p, o);"
    )
    with visit(browser, host, script) as (_, page):
        page.get_by_role("button", name="Stop").click()
        assert failure(page) == "Loading was stopped"
        page.evaluate("self.go = true")
        page.get_by_role("button", name="Try again").click()
        ready(page)
    assert host.served.count(first) == 1


@pytest.mark.slow
def test_an_altered_file_is_named_and_not_kept(site: Path, browser: Browser) -> None:
    def alter(path: str, data: bytes) -> bytes:
        return data[:-40] + bytes(40) if path.endswith(".gguf") else data

    host = Host(site, alter)
    with visit(browser, host) as (_, page):
        assert failure(page) == "A file is not the right one"
        assert shards(site)[0] in page.locator(".cause").inner_text()
        host.tamper = None
        page.get_by_role("button", name="Try again").click()
        ready(page)


@pytest.mark.slow
@pytest.mark.parametrize("missing", ["model", "host/engine.js"])
def test_a_file_that_was_not_copied_is_named(
    site: Path, tmp_path: Path, browser: Browser, missing: str
) -> None:
    shutil.copytree(site, tmp_path / "part")
    (tmp_path / "part" / missing).rename(tmp_path / "gone")
    with visit(browser, Host(tmp_path / "part")) as (_, page):
        assert failure(page) == "A file is not on the server"
        assert "must copy the whole folder" in page.locator("#screen .hint").inner_text()


@pytest.mark.parametrize("lack", LACKS)
def test_a_browser_that_cannot_is_told_why_before_anything_is_downloaded(
    site: Path, browser: Browser, lack: str
) -> None:
    host = Host(site)
    with visit(browser, host, NEVER_ISOLATED + lack) as (_, page):
        assert failure(page) == LACKS[lack]
    assert not [name for name in host.served if name.endswith(".gguf")]

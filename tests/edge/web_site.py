"""What the tests of the web app share: a packaged folder, a plain server of it, and a person who visits."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize, expect
from safetensors.numpy import load_file, save_file

from edge.cli import main
from edge.packaging import web
from edge.progress import Silent

PHONE = ViewportSize(width=412, height=915)
PATIENCE_MS = 60_000
CONNECTION_ERRORS = ("Failed to load resource", "net::ERR_")
NEVER_ISOLATED = "if (origin !== 'null') sessionStorage.setItem('edge reloaded', '1');"
"""A script for pages that take themselves to be reloaded already: there are no threads."""
Tamper = Callable[[str, bytes], bytes | None]


def package(bundle: Path, site: Path, *, shard_bytes: int = 60_000) -> Path:
    """The web app of a bundle, cut into several shards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(web, "SHARD_BYTES", shard_bytes)
        web.package(bundle, site, None, Silent())
    return site


def wordy_bundle(checkpoint: Path, directory: Path) -> Path:
    """A bundle of a random model that says ASCII only: wllama's engine stops at bytes that are no UTF-8."""
    copy = directory / "checkpoint"
    shutil.copytree(checkpoint, copy)
    words = {
        i
        for token, i in json.loads((copy / "tokenizer.json").read_text())["model"]["vocab"].items()
        if token.removeprefix("Ġ").isascii()
    }
    for file in copy.glob("*.safetensors"):
        tensors = load_file(file)
        if (head := tensors.get("lm_head.weight")) is not None:
            head[[i for i in range(len(head)) if i not in words]] = 0
            save_file(tensors, file)
    bundle = directory / "bundle"
    assert main(["convert", str(copy), "-t", "android", "--no-proof", "-o", str(bundle)]) == 0
    return bundle


class Host:
    """A server of static files, as any is one. `tamper(path, data)` gives what is sent instead: None breaks off in the
    middle. `served` are the paths that were asked for."""

    def __init__(self, root: Path, tamper: Tamper | None = None) -> None:
        self.root, self.tamper, self.served = root, tamper, list[str]()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, self))
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(SimpleHTTPRequestHandler):
    def __init__(self, host: Host, *arguments: Any) -> None:
        self.host = host
        super().__init__(*arguments, directory=str(host.root))

    def do_GET(self) -> None:
        path = self.path.partition("?")[0].removeprefix("/") or "index.html"
        self.host.served.append(path)
        file = self.host.root / path
        if self.host.tamper is None or not file.is_file():
            return super().do_GET()
        data = self.host.tamper(path, file.read_bytes())
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(path))
        self.send_header("Content-Length", str(file.stat().st_size))
        self.end_headers()
        self.wfile.write(data if data is not None else file.read_bytes()[: file.stat().st_size // 2])
        self.close_connection = True
        return None

    def log_message(self, format: str, *arguments: Any) -> None: ...


@contextmanager
def visit(browser: Browser, host: Host, script: str = "") -> Iterator[tuple[BrowserContext, Page]]:
    """A browser that never saw the page before, at its address. `script` runs in every page before it.

    Fails on an error in the scripts or the console, but of the connection, and on a request to any other server.
    """
    wrong: list[str] = []
    context = browser.new_context(viewport=PHONE)
    context.set_default_timeout(PATIENCE_MS)
    if script:
        context.add_init_script(script)
    own = (host.url, "blob:", "data:")
    context.on("request", lambda r: None if r.url.startswith(own) else wrong.append(r.url))
    context.on("weberror", lambda error: wrong.append(str(error.error)))
    context.on("console", lambda told: wrong.append(told.text) if told.type in ("error", "warning") else None)
    page = context.new_page()
    page.goto(host.url)
    try:
        yield context, page
    finally:
        context.close()
        host.close()
    wrong = [line for line in wrong if not any(known in line for known in CONNECTION_ERRORS)]
    assert not wrong, wrong


def ready(page: Page) -> None:
    """Until the model is loaded; fails at once where the page tells a problem."""
    expect(page.locator("#model-facts", has_text="thread").or_(page.locator(".cause"))).to_be_visible(
        timeout=PATIENCE_MS
    )
    assert page.locator(".cause").count() == 0, page.locator("#screen").inner_text()


def failure(page: Page) -> str:
    """The title of the screen that tells what went wrong."""
    expect(page.locator(".cause")).to_be_visible(timeout=PATIENCE_MS)
    return page.locator("#screen h1").inner_text()


def told(page: Page) -> dict[str, Any]:
    """The last message of the open conversation as the browser keeps it."""
    found: dict[str, Any] = page.evaluate(
        """() => { const id = sessionStorage.getItem('edge / open');
        return JSON.parse(localStorage.getItem('edge / chat ' + id)).messages.at(-1); }"""
    )
    return found

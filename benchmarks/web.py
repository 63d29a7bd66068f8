"""The packaged web app in Chromium beside llama.cpp on the same machine: `python -m benchmarks.web [--runs N]`.

The embedded default is converted for a phone, packaged with `--app web`, served by a plain server of files, and asked
by way of its page: on one thread, and on as many as there are cores. edge's own llama.cpp answers the same questions on
the same weights. All in turns, greedily, best run of each; writes benchmarks/web.md.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, expect, sync_playwright

from edge import machine
from edge.chat.prompt import PromptFormat
from edge.cli import main as edge
from edge.engine_settings import EngineSettings
from edge.runtimes import open_runtime
from edge.runtimes.protocol import Runtime
from edge.units import size

PAGE = Path(__file__).with_suffix(".md")
MODEL = "smollm2-135m-instruct"
CONTEXT = 4096
PATIENCE_MS = 600_000
# No two questions begin alike: nothing of the prompt is in a cache.
QUESTION = "Letter {0}. {1} Go on with this story, in many words, and let the ship number {0} come home."
STORY = (
    "The sea was calm that night, and the small boat went slowly along the coast while the crew slept. " * 12
)


@dataclass(frozen=True)
class Speed:
    """Tokens a second; `tokens`: of the prompt and of the answer."""

    prefill: float
    decode: float
    tokens: tuple[int, int]


@contextmanager
def served(folder: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


def visit(browser: Browser, url: str, threads: int, tokens: int) -> tuple[Page, float, float]:
    """The page with its model loaded; seconds of the first visit and of a reload."""
    context = browser.new_context()
    context.set_default_timeout(PATIENCE_MS)
    values = f'{{"threads": {threads}, "max_tokens": {tokens}, "temperature": 0}}'
    context.add_init_script(f"if (origin !== 'null') localStorage.setItem('edge / settings', '{values}');")
    page = context.new_page()
    seconds = []
    for go in (lambda: page.goto(url), page.reload):
        began = time.perf_counter()
        go()
        expect(page.locator("#model-facts")).to_contain_text("thread", timeout=PATIENCE_MS)
        seconds.append(time.perf_counter() - began)
    expect(page.locator("#model-facts")).to_contain_text(f"{threads} thread", timeout=PATIENCE_MS)
    return page, seconds[0], seconds[1]


def ask_page(page: Page, question: str) -> Speed:
    """What the page tells of its answer."""
    page.locator("#draft").fill(question)
    page.locator("#send").click()
    expect(page.locator(".foot")).to_have_count(1, timeout=PATIENCE_MS)
    found = page.evaluate(
        """() => JSON.parse(localStorage.getItem('edge / chat ' + sessionStorage.getItem('edge / open')))
        .messages.at(-1).numbers"""
    )
    page.locator("#new-chat").click()
    expect(page.locator(".foot")).to_have_count(0)
    counts = (found["prompt_tokens"] - found["cached_tokens"], found["new_tokens"])
    return Speed(found["prefill_per_second"], found["decode_per_second"], counts)


def ask_native(runtime: Runtime, question: str, tokens: int) -> Speed:
    """The same with edge's llama.cpp, timed as llama.cpp times itself: the token that ends the prompt is prefill's."""
    ids = PromptFormat(runtime, runtime.dialect()).ids([{"role": "user", "content": question}])
    runtime.rewind(0)
    began = time.perf_counter()
    logits = runtime.append(ids)
    read = time.perf_counter()
    for _ in range(tokens):
        logits = runtime.append([int(logits.argmax())])
    return Speed(len(ids) / (read - began), tokens / (time.perf_counter() - read), (len(ids), tokens))


def measure(options: argparse.Namespace, folder: Path) -> str:
    """The document."""
    bundle, site = folder / "bundle", folder / "site"
    for command in (
        ["convert", MODEL, "-t", "android", "--no-proof", "-o", str(bundle)],
        ["package", str(bundle), "--app", "web", "-o", str(site)],
    ):
        if edge(command):
            raise SystemExit(f"edge {' '.join(command)} failed")
    gguf = next(bundle.glob("*.gguf"))
    with ExitStack() as stack:
        url = stack.enter_context(served(site))
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        stack.callback(browser.close)
        ways: dict[tuple[str, int], Callable[[str], Speed]] = {}
        visits = {}
        for threads in dict.fromkeys((1, os.cpu_count() or 1)):
            page, first, again = visit(browser, url, threads, options.tokens)
            visits[threads] = (first, again)
            runtime = open_runtime(gguf, context_length=CONTEXT, settings=EngineSettings(threads=threads))
            stack.callback(runtime.close)
            ways["Chromium", threads] = partial(ask_page, page)
            ways["native", threads] = partial(ask_native, runtime, tokens=options.tokens)
        runs: dict[tuple[str, int], list[Speed]] = {way: [] for way in ways}
        for number in range(options.runs):
            for way, ask in ways.items():
                runs[way].append(ask(QUESTION.format(number + 1, STORY)))
                print(way, runs[way][-1], flush=True)
        return document(runs, visits, f"Chromium {browser.version}", size(gguf.stat().st_size))


def document(
    runs: Mapping[tuple[str, int], list[Speed]],
    visits: Mapping[int, tuple[float, float]],
    browser: str,
    weights: str,
) -> str:
    engine = f"llama.cpp of llama-cpp-python {version('llama-cpp-python')}"
    about = f"{machine.processor()}, {os.cpu_count()} cores, {machine.describe()}"
    rows = []
    for threads in visits:
        best = {
            where: [max(getattr(s, kind) for s in runs[where, threads]) for kind in ("prefill", "decode")]
            for where in ("Chromium", "native")
        }
        cells = [
            f"{page:.1f} / {native:.1f} = {page / native:.2f}"
            for page, native in zip(best["Chromium"], best["native"], strict=True)
        ]
        rows.append("| {} | {} | {} | {:.1f} | {:.1f} |".format(threads, *cells, *visits[threads]))
    read, written = runs["Chromium", 1][0].tokens
    count = len(runs["Chromium", 1])
    what = (
        f"Written by `python -m benchmarks.web`: {MODEL} ({weights}, Q4_0) in {browser} (headless, no GPU) through the "
        f"packaged page, beside {engine} on the same weights. {about}. {count} questions of about {read} tokens, up to "
        f"{written} tokens answered, greedily, in turns; best runs."
    )
    return f"""\
# The web app in a browser

{textwrap.fill(what, 120)}

| threads | read, tokens/s: page / native = ratio | write, tokens/s | first visit, s | reload, s |
|---|---|---|---|---|
{chr(10).join(rows)}

The page's numbers are those that it shows a person. The first visit comes from a server on this machine: all files are
fetched, compared with their SHA-256 and loaded. A reload takes them from the browser's storage.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="questions (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=48, help="of each answer (default: %(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        text = measure(options, Path(folder))
    PAGE.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()

"""The README's pictures of the app: what the controller told in a real conversation, told to the page again.

Played again, each picture shows the same instant whatever the machine's speed was; the speeds that it shows are those
that were measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page

from tests.apps.page.seam import opened, tell

Event = dict[str, Any]
PHONE = {"has_touch": True, "is_mobile": True}
COLOURS = 200
KEYS_A_FRAME, PIECES_A_FRAME = 4, 2
LONG_MS, SHORT_MS = 1500, 90


def still(browser: Browser, events: list[Event], path: Path) -> None:
    """A PNG of the page after `events`."""
    with opened(browser, device_scale_factor=2, **PHONE) as page:
        for event in events:
            tell(page, **event)
        Image.open(BytesIO(_shot(page))).convert("RGB").save(path, optimize=True)


def film(browser: Browser, events: list[Event], path: Path) -> None:
    """A GIF of the whole conversation: typed, sent, answered; it turns dark with the last question."""
    with opened(browser, **PHONE) as page:
        page.set_viewport_size({"width": 360, "height": 720})
        frames = [(Image.open(BytesIO(png)).convert("RGB"), wait) for png, wait in _play(page, events)]
    both = Image.new("RGB", (720, 720))
    both.paste(frames[len(frames) // 4][0], (0, 0))
    both.paste(frames[-1][0], (360, 0))
    palette = both.quantize(COLOURS, dither=Image.Dither.NONE)
    first, *rest = (image.quantize(palette=palette, dither=Image.Dither.NONE) for image, _ in frames)
    waits = [wait for _, wait in frames]
    first.save(path, save_all=True, append_images=rest, duration=waits, loop=0, optimize=True)


def _play(page: Page, events: list[Event]) -> Iterator[tuple[bytes, int]]:
    """Pictures, and how long each is to be seen, in milliseconds."""
    questions = [event for event in events if event.get("phase") == "answering"]
    pieces = 0
    for event in events:
        if event in questions:
            yield from _typed(page, event["messages"][-1]["text"], dark=event is questions[-1])
            page.locator("#draft").fill("")
        tell(page, **event)
        pieces += event["type"] == "piece"
        if event["type"] == "piece" and pieces % PIECES_A_FRAME == 0:
            yield _shot(page), SHORT_MS
        elif event["type"] == "state" and event["phase"] in ("answering", "ready"):
            yield _shot(page), LONG_MS // 2
    yield _shot(page), 2 * LONG_MS


def _typed(page: Page, text: str, *, dark: bool) -> Iterator[tuple[bytes, int]]:
    for end in range(KEYS_A_FRAME, len(text) + KEYS_A_FRAME, KEYS_A_FRAME):
        page.locator("#draft").fill(text[:end])
        yield _shot(page), SHORT_MS
    if dark:
        page.emulate_media(color_scheme="dark")
        yield _shot(page), LONG_MS


def _shot(page: Page) -> bytes:
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return page.screenshot(animations="disabled")

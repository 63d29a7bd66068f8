"""The web app's first download in Chromium: broken, altered, refused, without room; each told, and none kept half."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edge.cli import main
from tests.edge.web_site import needs_browser, package, visit


@pytest.fixture
def site(tiny: Callable[..., Path], tmp_path: Path) -> Path:
    assert main(["convert", str(tiny("phi4")), "-t", "android", "--no-proof", "-o", str(tmp_path / "b")]) == 0
    return package(tmp_path / "b", tmp_path / "site")


@needs_browser
def test_an_interrupted_download_goes_on_with_what_is_missing(site: Path) -> None:
    seen = visit("interrupted", site)
    assert (seen["title"], seen["button"]) == ("The download was interrupted", "Continue")
    assert [name for name in seen["served"] if name.endswith(".gguf")] == seen["shards"][-1:]


@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize(
    ("scenario", "title"),
    [
        ("altered", "A file of the app is not the one it was built with"),
        ("missing", "A file of the app is not on the server"),
    ],
)
def test_a_wrong_or_missing_file_is_named(site: Path, scenario: str, title: str) -> None:
    assert visit(scenario, site)["title"] == title


@needs_browser
def test_a_browser_that_cannot_is_told_why(site: Path) -> None:
    assert visit("without", site)["found"] == {
        "wasm": "This browser cannot run the model",
        "storage": "The browser gives this page no storage",
        "room": "Not enough storage",
    }

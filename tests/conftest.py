"""Shared fixtures: tiny random checkpoints of every supported shape."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from benchmarks.random_checkpoint import ALL_SHAPES, ALL_TOKENIZERS, write_checkpoint
from benchmarks.tiny_multimodal import Layout, write_multimodal

PATIENCE_MS = 30_000
_WRITER_OPTIONS = {"seed", "dtype", "shards", "tokenizer"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-snapshots", action="store_true", help="write tests/snapshots anew; look at the difference"
    )


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`tiny(name, **overrides)`: directory of a random checkpoint, made once a session. Do not change it.

    Overrides are config keys, or `write_checkpoint`'s own seed, dtype, shards and tokenizer.
    """
    made: dict[str, Path] = {}

    def make(name: str, **overrides: Any) -> Path:
        key = json.dumps([name, overrides], sort_keys=True)
        if key not in made:
            options: dict[str, Any] = {"tokenizer": ALL_TOKENIZERS[name]}
            options |= {k: v for k, v in overrides.items() if k in _WRITER_OPTIONS}
            config = ALL_SHAPES[name] | {k: v for k, v in overrides.items() if k not in _WRITER_OPTIONS}
            directory = tmp_path_factory.mktemp(name)
            write_checkpoint(directory, config, **options)
            made[key] = directory
        return made[key]

    return make


@pytest.fixture(scope="session")
def tiny_multimodal(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`tiny_multimodal(layout, **options)`: as `tiny`, with the options of benchmarks.tiny_multimodal."""

    @cache
    def make(layout: Layout, **options: Any) -> Path:
        directory = tmp_path_factory.mktemp(layout)
        write_multimodal(directory, layout, **options)
        return directory

    return make


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One Chromium for all tests of a process: playwright's own loop can be there once."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("no Chromium on this machine (apt-get install chromium)")
    with sync_playwright() as playwright:
        expect.set_options(timeout=PATIENCE_MS)
        # As root, which CI is, Chromium has no sandbox.
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()

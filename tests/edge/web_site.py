"""What the tests of the web app share: a packaged folder, and Chromium driven by tests/browser/web.mjs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

from edge.cli import main
from edge.packaging import web
from edge.progress import Silent

BROWSER = Path(__file__).parents[1] / "browser"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(
    CHROMIUM is None or shutil.which("node") is None or not (BROWSER / "node_modules").is_dir(),
    reason="needs Chromium, node and `npm ci --prefix tests/browser`",
)


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


def visit(scenario: str, site: Path, **options: Any) -> dict[str, Any]:
    """What a scenario saw; its screenshots lie in EDGE_SHOTS, or beside the folder."""
    shots = Path(os.environ.get("EDGE_SHOTS", site.parent / "shots"))
    shots.mkdir(exist_ok=True)
    done = subprocess.run(
        ["node", "web.mjs", scenario, str(site), str(shots), json.dumps({"chromium": CHROMIUM, **options})],
        cwd=BROWSER,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout)
    assert seen["foreign"] == []
    assert seen["errors"] == []
    return seen

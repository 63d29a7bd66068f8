"""The page of `edge report` in a real browser: nothing wider than the window, no text cut off in a chart."""

from __future__ import annotations

import dataclasses
import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from edge.reporting import speed
from edge.reporting.findings import Findings
from edge.reporting.page import render
from tests.edge.report_page import bench_data


def browser() -> str | None:
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


# A frame of each width holds the page; the frame around it may run a script, the page may not.
_MEASURE = """<!doctype html><body><iframe id=f style="border:0;width:{width}px;height:900px" srcdoc="{page}"></iframe>
<script>onload = () => {{ const d = f.contentDocument;
const out = [...d.querySelectorAll('svg')].flatMap(s => [...s.querySelectorAll('text')].filter(t => {{
  const a = t.getBoundingClientRect(), b = s.getBoundingClientRect();
  return a.right > b.right + 4 || a.left < b.left - 4;
}}).map(t => t.textContent));
document.body.innerHTML = ''; document.body.append(JSON.stringify(
  {{wide: d.scrollingElement.scrollWidth, charts: d.querySelectorAll('svg').length, out}})); }}</script>"""


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("browser")


@pytest.mark.skipif(browser() is None, reason="no Chromium on this machine (apt-get install chromium)")
@pytest.mark.parametrize("width", [390, 1100])
def test_a_browser_shows_it_without_scrolling_sideways(
    width: int, report_findings: Findings, profile: Path
) -> None:
    full = dataclasses.replace(report_findings, speeds=speed.parse(bench_data()))
    file = profile / f"{width}.html"
    file.write_text(_MEASURE.format(width=width, page=html.escape(render(full))), encoding="utf-8")
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile / 'data'}"]
    done = subprocess.run(
        [str(browser()), *flags, "--window-size=1400,1000", "--dump-dom", file.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env=os.environ | {"HOME": str(profile)},
    )
    said = json.loads(html.unescape(re.search(r"<body>(.*)</body>", done.stdout, re.S)[1]))  # type: ignore[index]
    assert said["wide"] <= width
    assert said["charts"] >= 8
    assert said["out"] == []

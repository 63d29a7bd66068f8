"""What of the activity runs without a phone: it compiles whole, and it gives the page its own files alone."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.apps.host_build import ANDROID

PAGE = "https://appassets.androidplatform.net/www/"
APP = ANDROID / "java" / "app" / "dev" / "edge" / "app"
PROBE = Path(__file__).parent / "activity"
TOKENS = ANDROID / "www" / "css" / "tokens.css"


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("activity")
    folders = (ANDROID / "stubs", ANDROID / "java", PROBE)
    files = [str(file) for folder in folders for file in sorted(folder.rglob("*.java"))]
    subprocess.run(["javac", "--release", "8", "-Xlint:-options", "-d", str(output), *files], check=True)
    return output


ADDRESSES = {
    f"{PAGE}index.html": "text/html",
    f"{PAGE}index.html#restored": "text/html",
    f"{PAGE}css/tokens.css": "text/css",
    f"{PAGE}js/main.js": "text/javascript",
    f"{PAGE}": "null",
    f"{PAGE}model.gguf": "null",
    f"{PAGE}../model.json": "null",
    f"{PAGE}%2e%2e/licences/index.html": "null",
    "https://appassets.androidplatform.net/model.js": "null",
    "https://appassets.androidplatform.net:8443/www/js/main.js": "null",
    "https://someone@appassets.androidplatform.net/www/js/main.js": "null",
    "http://appassets.androidplatform.net/www/index.html": "null",
    "https://example.org/www/index.html": "null",
    "file:///www/index.html": "null",
    "content://appassets.androidplatform.net/www/index.html": "null",
    "data:text/html,x": "null",
}


def test_only_the_pages_own_files_are_answered(classes: Path) -> None:
    command = ["java", "-cp", str(classes), "dev.edge.app.AddressProbe", *ADDRESSES]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert dict(zip(ADDRESSES, told, strict=True)) == ADDRESSES


def test_the_page_can_call_what_it_is_given_and_nothing_else() -> None:
    """A method without JavascriptInterface is out of a page's reach; what bridge.js calls must have one."""
    offered = {
        name
        for file in ("Page.java", "Shell.java")
        for name in re.findall(r"@JavascriptInterface\s+public void (\w+)\(", (APP / file).read_text())
    }
    page = "".join(file.read_text() for file in (ANDROID / "www" / "js").glob("*.js"))
    called = set(re.findall(r"\b(?:phone|shell|window\.EdgeHost|window\.EdgeShell)\.(\w+)\(", page))
    assert called == offered


def test_files_and_providers_are_shut_to_the_page() -> None:
    source = (APP / "Page.java").read_text()
    assert {"setAllowFileAccess(false)", "setAllowContentAccess(false)"} <= set(
        re.findall(r"set\w+\(\w+\)", source)
    )
    assert "setWebContentsDebuggingEnabled" not in source


def test_the_window_has_the_pages_colours() -> None:
    """Between the launch and the first paint, and under the bars, nobody sees another ground."""
    light, dark = re.findall(r"--ground: #(\w+);", TOKENS.read_text())
    found = [_window(folder) for folder in ("values", "values-night")]
    assert found == [f"#{light}".upper(), f"#{dark}".upper()]
    red, green, blue = (f"0x{dark[at : at + 2]}" for at in (0, 2, 4))
    assert f"Color.rgb({red}, {green}, {blue}) : Color.WHITE" in (APP / "Bars.java").read_text()


def _window(folder: str) -> str:
    colours = ElementTree.parse(ANDROID / "res" / folder / "colors.xml").getroot()
    return next(str(colour.text).upper() for colour in colours if colour.get("name") == "window")

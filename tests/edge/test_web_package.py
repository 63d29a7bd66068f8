"""The folder of `--app web`: the same bytes each time, small files, and the prompt of `edge chat`."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from converters.errors import SourceError
from edge.bundle import hash_files
from edge.chat.templates import ChatTemplate
from edge.cli import main
from edge.packaging import app_folder, phone_model, web, web_page
from edge.packaging.app_folder import LIST, sources
from edge.progress import Silent
from tests.edge.web_site import Host, package


@pytest.fixture(scope="module")
def bundle(tiny: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("web") / "b"
    assert main(["convert", str(tiny("phi4")), "-t", "android", "--no-proof", "-o", str(made)]) == 0
    return made


def test_two_runs_write_the_same_bytes_and_the_second_replaces_the_first(
    bundle: Path, tmp_path: Path
) -> None:
    first = hash_files(package(bundle, tmp_path / "site"))
    assert hash_files(package(bundle, tmp_path / "site")) == first
    assert json.loads((tmp_path / "site" / LIST).read_text())["files"] == {
        n: e for n, e in first.items() if n != LIST
    }
    assert not [path for path in tmp_path.iterdir() if path.name != "site"]


def test_a_failure_on_the_way_leaves_the_old_folder_and_nothing_else(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = hash_files(package(bundle, tmp_path / "site"))

    def broken(*arguments: Any, **options: Any) -> None:
        raise SourceError("gone", hint="none")

    monkeypatch.setattr(web, "split", broken)
    with pytest.raises(SourceError):
        package(bundle, tmp_path / "site")
    assert hash_files(tmp_path / "site") == before
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


@pytest.mark.parametrize("app", ["web", "ios"])
def test_a_full_disk_is_told_and_leaves_nothing(
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    app: str,
) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(app_folder, "write_json", full)
    assert main(["package", str(bundle), "--app", app, "-o", str(tmp_path / "site")]) == 2
    assert "is full" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_page_is_the_phones_with_a_browsers_policy(bundle: Path, tmp_path: Path) -> None:
    site, page = package(bundle, tmp_path / "site"), sources("android") / "www"
    for file in page.rglob("*.*"):
        name = file.relative_to(page)
        same = (site / name).read_bytes() == file.read_bytes()
        assert same == (name.as_posix() not in ("index.html", "js/bridge.js"))
    own, phone = (
        set(re.findall(r"export (?:async )?\w+ (\w+)", (at / "js/bridge.js").read_text()))
        for at in (site, page)
    )
    assert own == phone
    text = (site / "index.html").read_text()
    assert "script-src 'self' blob: 'wasm-unsafe-eval'" in text
    (site / "index.html").write_text("<p>another page</p>")
    with pytest.raises(ValueError, match="stands there 0 times"):
        web_page.rewrite(site / "index.html")


def test_the_worker_and_the_page_know_every_file_by_its_hash(bundle: Path, tmp_path: Path) -> None:
    site = package(bundle, tmp_path / "site")
    line = (site / "sw.js").read_text().splitlines()[0]
    build = json.loads(line.removeprefix("const BUILD = ").removesuffix(";"))
    known = {name: {k: entry[k] for k in ("size", "sha256")} for name, entry in build["files"].items()}
    assert known == {name: entry for name, entry in hash_files(site).items() if name not in ("sw.js", LIST)}
    assert build["files"]["index.html"]["group"] == "shell"


def test_a_person_is_told_of_a_shorter_context_and_of_large_files(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    described = phone_model.load(bundle, None, lambda count: None).description
    room = 1000 * described["kv_bytes_per_token"] + described["size"] + described["work_bytes"]
    monkeypatch.setattr(web, "MAX_MEMORY_BYTES", room)
    monkeypatch.setattr(web, "HOST_BYTES", 1000)
    packaged = web.package(bundle, tmp_path / "site", None, Silent())
    assert packaged.figures["context"] == 512  # the largest power of two part of 4096 under 1000
    assert "512 tokens" in packaged.notes[0]
    assert "1.0 kB" in packaged.notes[1]
    assert packaged.total == sum(
        entry["size"] for name, entry in hash_files(tmp_path / "site").items() if name != LIST
    )


@pytest.mark.parametrize("system", ["", "Be  short.\n"])
def test_the_page_writes_the_prompt_that_the_template_renders(
    bundle: Path, tmp_path: Path, browser: Browser, system: str
) -> None:
    host = Host(package(bundle, tmp_path / "site"))
    model = json.loads((host.root / "build.json").read_text())["model"] | {"bos": "", "strip": []}
    contents = [" \x1c\u00a0Hello\u2003", "Hi {{ there }}\n", "emoji \U0001f44d\ufeff $& \\1"]
    messages = list(zip(["user", "assistant", "user"], contents, strict=True))
    page = browser.new_page()
    page.goto(f"{host.url}build.json")
    written = page.evaluate(
        "async (given) => (await import('/host/prompt.js')).makePrompt(...given)",
        [model, [{"role": role, "text": text} for role, text in messages], system],
    )
    page.close()
    host.close()
    template = ChatTemplate(json.loads((bundle / "tokenizer_config.json").read_text())["chat_template"])
    given = [("system", system), *messages] if system else messages
    assert written == template.render([{"role": role, "content": text} for role, text in given])

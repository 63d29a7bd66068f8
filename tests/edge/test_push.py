"""`edge push` against a stand-in for adb whose phone is a folder: the real command, every byte through a real pipe.

What a real phone adds (its cable, Android's rights to the folder) cannot be tried here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edge import cli
from tests.edge import fake_adb

Tiny = Callable[..., Path]


@pytest.fixture(scope="module")
def bundle(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("push") / "bundle"
    words = [
        "convert",
        str(tiny("phi4-mini")),
        "-t",
        "android",
        "--context",
        "64",
        "--no-proof",
        "-o",
        str(output),
    ]
    assert cli.main(words) == 0
    return output


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = fake_adb.install(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    return folder


def gguf(bundle: Path) -> Path:
    return next(bundle.glob("*.gguf"))


def on_phone(phone: Path) -> Path:
    return next((phone / "sdcard/Android/data/dev.edge.app/files/models").iterdir())


def push(model: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = cli.main(["push", str(model), "--json"])
    told = capsys.readouterr()
    return code, told.out or told.err


def test_it_goes_to_the_app_that_is_named(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phone = fake_adb.install(tmp_path, package="com.example.chat")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    assert cli.main(["push", str(bundle)]) == 1, "edge's own app is not there"
    assert cli.main(["push", str(bundle), "--app", "com.example.chat"]) == 0
    assert list(phone.glob("sdcard/Android/data/com.example.chat/files/models/*/model.gguf"))


def test_what_lies_on_the_phone_is_the_model_and_its_description(
    bundle: Path, phone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = push(bundle, capsys)
    assert code == 0, text
    report = json.loads(text)
    assert report["sent"] == report["bytes"] == gguf(bundle).stat().st_size
    folder = on_phone(phone)
    assert sorted(p.name for p in folder.iterdir()) == ["model.gguf", "model.json"]
    assert (folder / "model.gguf").read_bytes() == gguf(bundle).read_bytes()
    described = json.loads((folder / "model.json").read_text())
    assert described["id"] == folder.name == report["model"]
    assert described["sha256"] == hashlib.sha256(gguf(bundle).read_bytes()).hexdigest()


def test_what_is_there_and_whole_is_not_sent_again(
    bundle: Path, phone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    push(bundle, capsys)
    before = (on_phone(phone) / "model.gguf").stat().st_mtime_ns
    code, text = push(bundle, capsys)
    assert (code, json.loads(text)["sent"]) == (0, 0)
    assert (on_phone(phone) / "model.gguf").stat().st_mtime_ns == before


def test_a_broken_off_push_shows_the_app_nothing_and_is_continued(
    bundle: Path, phone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (phone / "break_after").write_text("5000")
    code, text = push(bundle, capsys)
    assert code == 1
    assert "broke off" in text
    assert [p.name for p in on_phone(phone).iterdir()] == ["model.gguf.part"]
    (phone / "devices").write_text("emu1\tdevice\n")
    code, text = push(bundle, capsys)
    assert (code, json.loads(text)["resumed"]) == (0, 5000)
    assert (on_phone(phone) / "model.gguf").read_bytes() == gguf(bundle).read_bytes()


def test_a_damaged_beginning_is_sent_anew(
    bundle: Path, phone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (phone / "break_after").write_text("5000")
    push(bundle, capsys)
    (phone / "devices").write_text("emu1\tdevice\n")
    part = on_phone(phone) / "model.gguf.part"
    part.write_bytes(b"x" * 5000)
    code, text = push(bundle, capsys)
    assert (code, json.loads(text)["resumed"]) == (0, 0)
    assert (on_phone(phone) / "model.gguf").read_bytes() == gguf(bundle).read_bytes()


def test_a_byte_that_arrives_wrong_is_never_published(
    bundle: Path, phone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (phone / "flip").write_text("4097")
    code, text = push(bundle, capsys)
    assert code == 1
    assert "other bytes than were sent" in text
    assert list(on_phone(phone).iterdir()) == []


def test_a_model_that_does_not_fit_is_not_begun(
    bundle: Path, phone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (phone / "free").write_text("1000")
    code, text = push(bundle, capsys)
    assert code == 1
    assert "1.0 MB free" in text
    assert list(on_phone(phone).iterdir()) == []

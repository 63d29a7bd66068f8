"""What a page does faster than the app expects, and what fails while the app must live on."""

from __future__ import annotations

import json
import struct
import subprocess
from dataclasses import replace
from pathlib import Path

from tests.apps.conftest import describe
from tests.apps.host_app import embed, push, run
from tests.apps.host_build import ANDROID, Host


def test_a_question_asked_at_once_and_streams_closed(host: Host, tiny_gguf: Path, tmp_path: Path) -> None:
    embed(tmp_path, tiny_gguf, describe(tiny_gguf))
    folders = [tmp_path / name for name in ("files", "assets", "pushed")]
    command = host.java(
        "dev.edge.host.ControllerProbe", ANDROID / "www", *folders, host.libraries, "/proc", "tiny"
    )
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"at_once": ["length"] * 5, "imported": 2, "late": 1}


def test_an_answer_that_cannot_be_made_anew_stays(host: Host, tiny_gguf: Path, tmp_path: Path) -> None:
    embed(tmp_path, tiny_gguf, describe(tiny_gguf))
    with run(host, tmp_path) as app:
        app.load("tiny")
        app.send("settings", values={"max_tokens": 3, "seed": 1})
        said = app.ask("hello")["text"]
        app.send("unload")
        app.last("state", phase="empty")
        app.send("again")
        events = app.until("state", phase="empty")
        assert [e["code"] for e in events if e["type"] == "error"] == ["no_model"]
        assert [m["text"] for m in events[-1]["messages"]] == ["hello", said]
        app.load("tiny")
        app.send("settings", values={"system": "word " * 2000})
        app.send("again")
        assert app.last("error")["code"] == "too_long"
        assert [m["text"] for m in app.last("state", phase="ready")["messages"]] == ["hello", said]


def test_a_library_that_cannot_be_loaded_is_told(host: Host, tiny_gguf: Path, tmp_path: Path) -> None:
    embed(tmp_path, tiny_gguf, describe(tiny_gguf))
    with run(replace(host, library_path=tmp_path), tmp_path) as app:
        for _ in range(2):
            app.send("load", model="tiny")
            events = app.until("state", phase="empty")
            assert [e["code"] for e in events if e["type"] == "error"] == ["library"]
        app.send("models")
        assert app.last("models")["current"] is None


def _renamed(gguf: Path, old: str, new: str) -> bytes:
    """The file with one text of its header for another; the model's name takes up the difference in length."""
    data = gguf.read_bytes()
    at = data.index(b"general.name") + len("general.name") + 4
    (size,) = struct.unpack_from("<Q", data, at)
    name = data[at + 8 : at + 8 + size]
    shift = len(new) - len(old)
    assert 0 <= shift < size
    swaps = (
        (struct.pack("<Q", size) + name, struct.pack("<Q", size - shift) + name[: size - shift]),
        (struct.pack("<Q", len(old)) + old.encode(), struct.pack("<Q", len(new)) + new.encode()),
    )
    for one, other in swaps:
        assert one in data
        data = data.replace(one, other, 1)
    return data


def test_a_model_without_a_vocabulary_is_refused(host: Host, tiny_gguf: Path, tmp_path: Path) -> None:
    """llama.cpp loads it, and aborts the app at the first text."""
    file = tmp_path / "odd.gguf"
    file.write_bytes(_renamed(tiny_gguf, "llama", "no_vocab"))
    push(tmp_path, file, describe(file))
    with run(host, tmp_path) as app:
        app.send("load", model="odd")
        assert app.last("error")["code"] == "not_supported"
        assert app.last("state", phase="empty")["model"] is None

"""The app's models on this computer: in the APK, pushed, opened; and everything that can be wrong with one."""

from __future__ import annotations

import json
from pathlib import Path

from tests.apps.conftest import describe
from tests.apps.host_app import embed, push, run
from tests.apps.host_build import Host


def test_models_of_three_origins_load(host: Host, tiny_gguf: Path, tmp_path: Path) -> None:
    embed(tmp_path, tiny_gguf, describe(tiny_gguf, id="inside"))
    push(tmp_path, tiny_gguf, describe(tiny_gguf, id="pushed"))
    with run(host, tmp_path) as app:
        app.upload("Own%20one.gguf", tiny_gguf.read_bytes())
        models = app.last("models")["models"]
        assert [(m["id"], m["origin"]) for m in models] == [
            ("inside", "embedded"), ("pushed", "pushed"), ("own-one", "opened"),
        ]  # fmt: skip
        assert [m["problem"] for m in models] == [None, None, None]
        for model in ("inside", "pushed", "own-one"):
            assert app.load(model)["model"]["id"] == model
            app.send("settings", values={"max_tokens": 3, "seed": 1})
            assert app.ask("hello")["numbers"]["new_tokens"] > 0
        app.send("remove", model="inside")
        assert app.last("error")["code"] == "bad_request"
        app.send("remove", model="own-one")
        assert len(app.last("models", current=None)["models"]) == 2


def test_embedded_model_is_copied_once_and_mapped(host: Host, tiny_gguf: Path, tmp_path: Path) -> None:
    embed(tmp_path, tiny_gguf, describe(tiny_gguf))
    for stages in ({"copy", "check", "load"}, {"load"}):
        with run(host, tmp_path) as app:
            app.send("load", model="tiny")
            events = app.until("state", phase="ready")
            assert {e["stage"] for e in events if e["type"] == "progress"} == stages
            file = tmp_path / "files" / "models" / "tiny" / "model.gguf"
            maps = "".join(path.read_text() for path in Path("/proc").glob("[0-9]*/maps") if _is_java(path))
            assert str(file) in maps


def _is_java(maps: Path) -> bool:
    try:
        return (maps.parent / "comm").read_text() == "java\n"
    except OSError:
        return False


def test_too_little_memory_is_told_before_anything_is_read(host: Host, tiny_gguf: Path, tmp_path: Path) -> None:
    embed(tmp_path, tiny_gguf, describe(tiny_gguf, work_bytes=200 << 20))
    with run(host, tmp_path, available_mb=100) as app:
        app.send("load", model="tiny")
        events = app.until("state", phase="empty")
        error = next(e for e in events if e["type"] == "error")
        assert error["code"] == "memory"
        assert "100 MB are available" in error["message"]
        assert not [e for e in events if e["type"] == "progress"]
        assert not (tmp_path / "files" / "models" / "tiny").exists()


def test_damaged_files_are_named(host: Host, tiny_gguf: Path, tmp_path: Path) -> None:
    whole = tiny_gguf.read_bytes()
    flipped = whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:]
    files = {"cut": whole[: len(whole) // 2], "flipped": flipped}
    for name, data in files.items():
        push(tmp_path, tiny_gguf, describe(tiny_gguf, id=name)).write_bytes(data)
    push(tmp_path, tiny_gguf, describe(tiny_gguf, id="gone")).unlink()
    cut = tmp_path / "half.gguf"
    cut.write_bytes(whole[: len(whole) // 2])
    push(tmp_path, cut, describe(cut, id="half"))
    foreign = tmp_path / "foreign.gguf"
    foreign.write_bytes(whole.replace(b"\4\0\0\0\0\0\0\0phi3", b"\4\0\0\0\0\0\0\0phi9", 1))
    push(tmp_path, foreign, describe(foreign, id="foreign"))
    (tmp_path / "pushed" / "partly").mkdir()
    expected = {
        "cut": ("file_damaged", "bytes, not"), "flipped": ("file_damaged", "SHA-256"), "gone": ("file_missing", "gone"),
        "half": ("file_damaged", "model.gguf"), "foreign": ("not_supported", "phi9"), "none": ("no_model", "none"),
    }  # fmt: skip
    with run(host, tmp_path) as app:
        app.send("models")
        problems = {m["id"]: m["problem"] and m["problem"]["code"] for m in app.last("models")["models"]}
        assert problems == {
            "cut": "file_damaged", "flipped": None, "foreign": None, "gone": "file_missing", "half": None,
        }  # fmt: skip
        for name, (code, said) in expected.items():
            app.send("load", model=name)
            error = app.last("error")
            assert (name, error["code"]) == (name, code)
            assert said in error["message"]
        app.upload("photo.gguf", b"\x89PNG" + whole[:100])
        assert app.last("error")["code"] == "file_damaged"
        assert not (tmp_path / "files" / "models" / "photo").exists()


def test_history_and_settings_outlive_the_app(host: Host, tiny_gguf: Path, tmp_path: Path) -> None:
    embed(tmp_path, tiny_gguf, describe(tiny_gguf, sampling={"temperature": 0.5, "odd": 1}))
    with run(host, tmp_path) as app:
        app.load("tiny")
        app.send("settings", values={"max_tokens": 3, "seed": 1})
        settings = app.last("settings")
        assert settings["defaults"]["temperature"] == settings["values"]["temperature"] == 0.5
        said = app.ask("remember \U0001f44d")["text"]
    (tmp_path / "files" / "history" / "00000000-0000-0000-0000-000000000000.json").write_text("{")
    with run(host, tmp_path) as app:
        app.send("hello")
        (talk,) = app.last("history")["conversations"]
        assert talk["title"] == "remember \U0001f44d"
        app.send("open", conversation=talk["id"])
        state = app.last("state", conversation=talk["id"])
        assert [m["text"] for m in state["messages"]] == ["remember \U0001f44d", said]
        app.send("settings")
        assert app.last("settings")["values"]["max_tokens"] == 3
        app.send("delete", all=True)
        assert app.last("history")["conversations"] == []
        assert app.last("state")["messages"] == []
    assert json.loads((tmp_path / "files" / "settings.json").read_text()) == {"max_tokens": 3, "seed": 1}

"""The app's C code under AddressSanitizer and UndefinedBehaviorSanitizer, which end the process at a finding."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.apps.conftest import describe
from tests.apps.host_app import embed, run
from tests.apps.host_build import Host


def probe(host: Host, name: str, gguf: Path) -> Any:
    command = host.java(f"dev.edge.core.{name}", host.libraries / "libllama.so", gguf)
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stdout + done.stderr  # of -Xcheck:jni
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def found(sanitized: Host, tiny_gguf: Path) -> dict[str, Any]:
    result: dict[str, Any] = probe(sanitized, "LlamaProbe", tiny_gguf)
    return result


def test_the_sanitizer_is_there(sanitized: Host) -> None:
    symbols = subprocess.run(
        ["nm", "-D", sanitized.library_path / "libedge_llama.so"], capture_output=True, text=True, check=True
    ).stdout
    assert "__asan_init" in symbols
    assert "__ubsan_handle" in symbols


def test_libraries_that_are_none_are_told(found: dict[str, Any]) -> None:
    assert found["links"] == {"missing": 1, "other": 2, "right": 0}


def test_loading_ends_without_a_model(found: dict[str, Any]) -> None:
    loads = found["loads"]
    assert loads.pop("exception") == "thrown"
    assert set(loads.values()) == {0}
    assert loads.keys() == {"missing", "refused", "cancelled", "not_direct"}


def test_texts_of_any_bytes_are_split(found: dict[str, Any]) -> None:
    expected = {
        "nothing": 0,
        "many": True,
        "broken": True,
        "missing": None,
        "array": None,
        "architecture": "phi3",
    }
    assert {name: found["text"][name] for name in expected} == expected


def test_wrong_numbers_are_refused_and_leave_a_good_context(found: dict[str, Any]) -> None:
    assert found["answers"] == {
        "early": -1, "logits": False, "beyond": "index", "none": -1, "negative": -1, "large": -1, "unknown": -1,
        "good": 0, "penalised": True, "cancelled": 2, "again": 0, "kept": 2, "full": 1,
    }  # fmt: skip


def test_templates_that_do_not_fit_are_unknown(found: dict[str, Any]) -> None:
    assert found["templates"] == {"known": True, "unknown": False, "large": False, "nine": False}


def test_threads_cancel_and_destroy(sanitized: Host, tiny_gguf: Path) -> None:
    found = probe(sanitized, "EngineProbe", tiny_gguf)
    assert found["together"] == [found["alone"]] * 2
    assert found["destroyed"] == {"reason": "stopped", "later": "no_model"}
    assert found["prefill"]["after"] == found["alone"]


def test_a_conversation_with_stops_everywhere(sanitized: Host, tiny_gguf: Path, tmp_path: Path) -> None:
    embed(tmp_path, tiny_gguf, describe(tiny_gguf))
    with run(sanitized, tmp_path) as app:
        app.send("settings", values={"max_tokens": 200, "temperature": 1, "repeat_penalty": 1.5})
        for text in ("héllo 👍🏽", "word " * 40, "go on"):
            app.send("load", model="tiny")
            app.send("stop")
            while app.last("state")["phase"] == "loading":
                continue
            app.load("tiny")
            app.send("chat", text=text)
            app.send("stop")
            assert app.last("done")["reason"] == "stopped"
            app.last("state", phase="ready")
            app.send("chat", text=text)
            app.until("piece")
            app.send("new")
            assert app.last("done")["reason"] == "stopped"
            while app.last("state")["messages"]:
                continue
        app.send("chat", text="and the app is closed meanwhile")
        app.until("piece")

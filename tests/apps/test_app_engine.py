"""The engine's Java and C under several threads, and the small Java classes, on this computer."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.apps.host_build import Host


@pytest.fixture(scope="module")
def probed(host: Host, tiny_gguf: Path) -> dict[str, Any]:
    command = host.java("dev.edge.core.EngineProbe", host.libraries / "libllama.so", tiny_gguf)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stdout
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_two_threads_get_whole_answers(probed: dict[str, Any]) -> None:
    assert probed["together"] == [probed["alone"]] * 2


def test_destroy_waits_for_the_answer(probed: dict[str, Any]) -> None:
    assert probed["destroyed"] == {"reason": "stopped", "later": "no_model"}


def test_cancel_while_the_prompt_is_read_leaves_a_good_engine(probed: dict[str, Any]) -> None:
    assert probed["prefill"] == {"reason": "stopped", "new": 0, "after": probed["alone"]}


def test_characters_stay_whole(probed: dict[str, Any]) -> None:
    assert probed["emoji"] == []

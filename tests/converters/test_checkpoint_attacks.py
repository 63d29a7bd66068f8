"""Every hostile checkpoint of tests/attacks is refused: by name, in one printable line, at little cost."""

from __future__ import annotations

import tracemalloc
from fnmatch import fnmatchcase
from pathlib import Path

import psutil
import pytest

from converters.checkpoint import Checkpoint
from converters.errors import CheckpointError
from tests.attacks.checkpoints import ATTACKS, Attack


def _pattern(attack: Attack, directory: Path) -> str:
    # In a cause only * is a wildcard; [ and ? stand for themselves.
    literal = attack.cause.replace("[", "[[]").replace("?", "[?]")
    return literal.replace("{dir}", str(directory))


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_attack_is_refused_in_one_line(attack: Attack, tmp_path: Path) -> None:
    directory = tmp_path / "m"
    directory.mkdir()
    path = attack.make(directory) or directory
    with pytest.raises(CheckpointError) as caught:
        Checkpoint.open(path)
    error = caught.value
    assert fnmatchcase(error.cause, _pattern(attack, directory)), error.cause
    for line in (error.cause, error.hint):
        assert line
        assert line.isprintable()
    assert len(error.cause) < 600
    # Not their number: a thread that some other test has left behind may open one of its own meanwhile.
    assert not [file.path for file in psutil.Process().open_files() if file.path.startswith(str(tmp_path))]


def test_names_of_attacks_are_distinct() -> None:
    names = [attack.name for attack in ATTACKS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_attack_takes_little_memory(attack: Attack, tmp_path: Path) -> None:
    path = attack.make(tmp_path) or tmp_path
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError):
            Checkpoint.open(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # The largest attack is a config.json of 24 MB, read once and refused before it is decoded.
    assert peak < 40e6

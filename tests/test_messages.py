"""Every message that a person can meet, held as text; `--update-snapshots` writes them anew.

A case runs the real command line or API (tests/messages). The last test reads the source for every place that
makes an error, and fails for one that no case has reached.
"""

from __future__ import annotations

import importlib
import pkgutil
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

import tests.messages
from edge import cli
from tests.messages import CASES, ROOT, World
from tests.messages.sites import find

for module in pkgutil.iter_modules(tests.messages.__path__):
    importlib.import_module(f"tests.messages.{module.name}")

SNAPSHOTS = ROOT / "tests" / "snapshots"
Tiny = Callable[..., Path]


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    for name in ("EDGE_DEBUG", "HF_HOME", "HF_ENDPOINT", "PIP_INDEX_URL", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    for name in ("EDGE_CACHE_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path_factory.getbasetemp() / f"messages-{name.lower()}"))


@pytest.fixture(scope="session")
def told(tiny: Tiny) -> Iterator[Callable[[str], World]]:
    """`told(name)`: the world of a case after it has run; each runs once."""
    with tempfile.TemporaryDirectory(prefix="edge-messages-") as base:

        @cache
        def run(name: str) -> World:
            directory = Path(base).resolve() / name.replace("/", "-")
            directory.mkdir()
            world = World(directory, tiny)
            CASES[name](world)
            return world

        yield run


def compare(name: str, text: str, request: pytest.FixtureRequest) -> None:
    file = SNAPSHOTS / f"{name}.txt"
    if request.config.getoption("--update-snapshots"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    assert file.is_file(), f"no snapshot {file}: run `pytest {Path(__file__).name} --update-snapshots`"
    assert text == file.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["", *cli.COMMANDS])
def test_help_page(name: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*([name] if name else []), "--help"]) == 0
    page = capsys.readouterr().out
    assert max(map(len, page.splitlines())) <= 80
    compare(f"help/{name or 'edge'}", page, request)


@pytest.mark.parametrize("name", sorted(CASES))
def test_message(name: str, told: Callable[[str], World], request: pytest.FixtureRequest) -> None:
    text = told(name).text()
    assert "error: unexpected" not in text or name == "usage/unforeseen", f"a bug, not a message: {text}"
    errors = [line for line in text.splitlines() if line.startswith("error: ")]
    hints = [line for line in text.splitlines() if line.startswith("hint: ")]
    assert len(errors) == len(hints)
    compare(name, text, request)


def test_no_snapshot_is_left_over() -> None:
    known = {f"help/{n or 'edge'}" for n in ("", *cli.COMMANDS)} | set(CASES)
    found = {f.relative_to(SNAPSHOTS).with_suffix("").as_posix() for f in SNAPSHOTS.rglob("*.txt")}
    assert found == known


def test_every_error_in_the_code_has_a_case(told: Callable[[str], World]) -> None:
    seen: dict[str, set[int]] = {}
    for name in CASES:
        for file, line in told(name).sites:
            seen.setdefault(file, set()).add(line)
    missing = []
    for site in find():
        lines = seen.get(str(ROOT / site.file), set())
        if not lines & set(range(site.first, site.last + 1)):
            missing.append(f"{site.file}:{site.first}: {site.text}")
    assert not missing, "no case in tests/messages reaches:\n" + "\n".join(sorted(missing))

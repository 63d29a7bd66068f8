"""Targets are data: built in, from a person's config directory, or from a project's edge.toml."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import get_args

import pytest

from converters.checkpoint import Checkpoint
from converters.errors import UnsupportedError
from converters.models import describe
from converters.rooms import ROOMS
from edge import targets
from edge.targets import load_targets
from quant.recipe import Precision, Recipe

ROOT = Path(__file__).parent.parent.parent


def example() -> str:
    """The target that CONTRIBUTING.md shows as a diff."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    diff = text.split("+++ edge/targets/tablet.toml\n")[1].split("```")[0]
    return "\n".join(line.removeprefix("+") for line in diff.splitlines())


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(targets.platformdirs, "user_config_dir", lambda name: str(tmp_path / "config"))
    (tmp_path / "config" / "targets").mkdir(parents=True)
    return tmp_path / "config" / "targets"


def test_the_example_of_contributing_is_a_target(config: Path, tmp_path: Path) -> None:
    (config / "tablet.toml").write_text(example())
    tablet = load_targets(tmp_path)["tablet"]
    assert tablet.runtime == "llama.cpp"
    assert tablet.limits["int8"].quality_top1 == 0.9


def test_a_project_overrides_the_person_and_the_person_overrides_us(config: Path, tmp_path: Path) -> None:
    cpu = (ROOT / "edge" / "targets" / "cpu.toml").read_text(encoding="utf-8")
    (config / "cpu.toml").write_text(cpu.replace("context_length = 4096", "context_length = 1000"))
    assert load_targets(tmp_path)["cpu"].context_length == 1000
    own = cpu.replace("context_length = 4096", "context_length = 500").replace(
        "[limits.", "[targets.cpu.limits."
    )
    (tmp_path / "edge.toml").write_text("[targets.cpu]\n" + own)
    assert load_targets(tmp_path)["cpu"].context_length == 500
    assert load_targets(tmp_path)["android"].context_length == 4096


def test_a_target_without_limits_has_the_shared_ones_and_own_limits_replace_them(config: Path) -> None:
    alone, own = example().split("[limits.int8]")
    (config / "plain.toml").write_text(alone)
    (config / "tablet.toml").write_text(f"{alone}[limits.int8]{own}")
    found = load_targets(config)
    assert found["plain"].limits == found["cpu"].limits
    assert set(found["tablet"].limits) == {"int8"}


def test_a_profile_is_part_of_a_target(config: Path) -> None:
    (config / "tuned.toml").write_text(example() + "\n[profile]\nengine = { batch = 64 }\n")
    found = load_targets(config)
    assert found["tuned"].profile.engine.batch == 64
    assert found["cpu"].profile.engine.kv_type is None


def test_a_built_in_target_has_limits_for_what_its_format_takes(tiny: Callable[..., Path]) -> None:
    with Checkpoint.open(tiny("phi4")) as checkpoint:
        decoder = describe(checkpoint)
    for target in load_targets().values():
        taken = set()
        for precision in get_args(Precision):
            with suppress(UnsupportedError):
                ROOMS[target.format].check(decoder, Recipe.preset(precision))
                taken.add(precision)
        assert set(target.limits) == taken, target.name

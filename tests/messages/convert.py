"""`edge convert`, targets and recipes."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any
from unittest import mock

from edge.convert import ConvertRequest, plan
from edge.targets import get_target
from quant.recipe import Recipe
from tests.messages import World, case


@case
def dry_run(world: World) -> None:
    world.edge("convert", world.tiny("phi4-mini"), "-t", "cpu", "-t", "android", "--dry-run")


@case
def context_is_capped(world: World) -> None:
    world.edge("convert", world.tiny("phi4"), "-t", "cpu", "--context", "1000000", "--dry-run")
    world.edge("convert", world.tiny("phi3.5-mini"), "-t", "android", "--context", "1000000", "--dry-run")


@case
def done_and_verified(world: World) -> None:
    world.edge("convert", world.tiny("phi4"), "-t", "cpu", "-o", "b", "--threads", "1", "--precision", "f32")
    world.edge("verify", "b")
    world.edge("verify", "b", "--against", world.tiny("phi4"))


@case
def unknown_target(world: World) -> None:
    world.edge("convert", world.tiny("phi4"), "--target", "toaster")
    world.call(plan, ConvertRequest(world.tiny("phi4"), ()))


@case
def engine_of_the_proof_is_missing(world: World) -> None:
    with mock.patch("importlib.util.find_spec", return_value=None):
        world.edge("convert", world.tiny("phi4"), "--target", "android", "-o", "b")


@case
def unknown_checkpoint(world: World) -> None:
    world.edge("convert", "nowhere", "--target", "cpu")


def own_target(world: World, **limits: float) -> None:
    values = {
        "fidelity_kl_mean": 1.0,
        "fidelity_top1": 0.0,
        "quality_kl_mean": 1.0,
        "quality_top1": 0.0,
    } | limits
    lines = [
        "[targets.mine]", 'title = "Mine"', 'format = "onnx"', 'precision = "int4"', "context_length = 256",
        "memory_mb = 1024", 'proven = "nowhere"', "[targets.mine.limits.int4]",
        *(f"{k} = {v}" for k, v in values.items()),
    ]  # fmt: skip
    (world.path / "edge.toml").write_text("\n".join(lines))


@case
def precision_that_a_target_does_not_take(world: World) -> None:
    own_target(world)
    world.edge("convert", world.tiny("phi4"), "--target", "mine", "--precision", "f16")


@case
def wrong_target_file(world: World) -> None:
    file = world.path / "edge.toml"
    file.write_text("[targets.mine")
    world.edge("targets")
    file.write_text("[targets.mine]\ntitle = 'Mine'\n")
    world.edge("targets")
    own_target(world)
    sound = file.read_text()
    file.write_text(sound.replace('"int4"', '"int8"'))
    world.edge("targets")
    for wrong in ("context_length = 'many'", "memory_mb = 0", "title = 4"):
        key = wrong.split()[0]
        file.write_text(re.sub(f"^{key} = .*", wrong, sound, flags=re.MULTILINE))
        world.edge("targets")
    file.write_text(sound.replace("= 1.0", "= 'low'"))
    world.edge("targets")


@case
def proof_fails(world: World) -> None:
    own_target(world, quality_top1=1.1, fidelity_top1=1.1)
    world.edge("convert", world.tiny("phi4"), "--target", "mine", "-o", "b", "--threads", "1")
    world.edge(
        "convert", world.tiny("phi4"), "--target", "mine", "-o", "b", "--threads", "1", "--allow-unproven"
    )
    world.edge("verify", "b")
    world.edge("verify", "b", "--against", world.tiny("phi4"))


@case
def output_holds_more_than_a_bundle(world: World) -> None:
    world.quietly("convert", world.tiny("phi4"), "-t", "cpu", "-o", "b", "--no-proof")
    (world.path / "b" / "thesis.txt").write_text("mine")
    world.edge("convert", world.tiny("phi4"), "-t", "cpu", "-o", "b", "--no-proof")
    world.edge("convert", world.tiny("phi4"), "-t", "cpu", "-o", ".", "--no-proof")
    assert (world.path / "b" / "thesis.txt").read_text() == "mine"


@case
def file_beside_the_weights_leads_out(world: World) -> None:
    directory = world.copy("phi4")
    (directory / "LICENSE").symlink_to("/etc/passwd")
    world.edge("convert", "checkpoint", "-t", "cpu", "-o", "b", "--no-proof")


@case
def tokenizer_of_another_model(world: World) -> None:
    world.copy("phi4")
    file = world.path / "checkpoint" / "tokenizer.json"
    data = json.loads(file.read_text())
    data["added_tokens"].append({**data["added_tokens"][0], "id": 999, "content": "<|x|>"})
    file.write_text(json.dumps(data))
    world.edge("convert", "checkpoint", "-t", "cpu", "-o", "b", "--no-proof")
    file.write_text("{}")
    world.edge("convert", "checkpoint", "-t", "cpu", "-o", "b", "--no-proof")


@case
def output_is_taken(world: World) -> None:
    (world.path / "b").mkdir()
    (world.path / "b" / "thesis.txt").write_text("mine")
    (world.path / "f").write_text("mine")
    for place in ("b", "f"):
        world.edge("convert", world.tiny("phi4"), "--target", "cpu", "-o", place)


@case
def another_conversion_is_at_it(world: World) -> None:
    with (world.path / ".b.edge-lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        world.edge("convert", world.tiny("phi4"), "--target", "cpu", "-o", "b")


@case
def disk_is_too_small(world: World) -> None:
    usage = mock.Mock(total=10**9, used=10**9, free=1000)
    with mock.patch.object(shutil, "disk_usage", return_value=usage):
        world.edge("convert", world.tiny("phi4"), "--target", "cpu", "-o", "b")


def _failing_mkdir(number: int) -> Any:
    def mkdir(self: Path, *arguments: Any, **options: Any) -> None:
        raise OSError(number, os.strerror(number), str(self))

    return mock.patch.object(Path, "mkdir", mkdir)


@case
def the_system_refuses(world: World) -> None:
    """Full, read-only and broken disks, played by `mkdir`: root, who runs tests, may write anywhere."""
    checkpoint = world.tiny("phi4")
    for number in (28, 30, 5):
        with _failing_mkdir(number):
            world.edge("convert", checkpoint, "--target", "cpu", "-o", "b")
            world.edge("convert", checkpoint, "--target", "cpu", "-o", "new/place/b")


@case
def recipe_is_wrong(world: World) -> None:
    checkpoint, file = world.tiny("phi4"), world.path / "recipe.json"
    command = ("convert", checkpoint, "--target", "cpu", "--dry-run", "--recipe", "recipe.json")
    world.edge(*command)
    rule = {"pattern": "*", "storage": "int4", "method": "rtn"}
    for rules in (
        "{", "{}", {"name": 1, "rules": [rule]}, {"name": "r", "rules": [{"pattern": "*"}]},
        {"name": "r", "rules": [rule | {"pattern": ""}]}, {"name": "r", "rules": [rule | {"storage": "int3"}]},
        {"name": "r", "rules": [rule | {"method": "cast"}]}, {"name": "r", "rules": [rule | {"pattern": "nothing"}]},
    ):  # fmt: skip
        file.write_text(rules if isinstance(rules, str) else json.dumps(rules))
        world.edge(*command)
    world.call(Recipe.preset, "int3")


@case
def no_target_of_that_name(world: World) -> None:
    world.call(get_target, "toaster")

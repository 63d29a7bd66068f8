"""The NPU's form with 16-bit activations, and binaries that are only looked at."""

from __future__ import annotations

import json

from edge.npu.shared import archived
from edge.npu.system import read_contents
from quant.recipe import Recipe
from tests.messages import World, case


@case
def activations_without_an_npu_target(world: World) -> None:
    world.edge("convert", world.tiny("phi4"), "--target", "cpu", "--activations", "u16", "--dry-run")


@case
def recipe_of_unknown_activations(world: World) -> None:
    data = {**Recipe.preset("int4").to_data(), "activations": "u8"}
    (world.path / "recipe.json").write_text(json.dumps(data))
    world.edge(
        "convert", world.tiny("phi4"), "--target", "android-npu", "--recipe", "recipe.json", "--dry-run"
    )


@case
def what_a_u16_bundle_will_be(world: World) -> None:
    world.edge(
        "convert", world.tiny("phi4"), "-t", "android-npu", "-t", "cpu", "--activations", "u16", "--dry-run"
    )


@case
def files_that_are_no_binaries(world: World) -> None:
    file = world.path / "context_qnn.bin"
    for content in (b"", b"no binary"):
        file.write_bytes(content)
        world.call(read_contents, file)
        world.call(archived, file)
    file.unlink()
    world.call(read_contents, file)
    world.call(archived, file)

"""Mixed recipes: which storages a format holds, budgets."""

from __future__ import annotations

import json

from safetensors import safe_open
from safetensors.torch import save_file

from tests.messages import World, case


@case
def five_bits_in_onnx(world: World) -> None:
    rules = [{"pattern": "layers.1.mlp.down", "storage": "int5", "method": "rtn"},
             {"pattern": "*", "storage": "int4", "method": "rtn"}]  # fmt: skip
    (world.path / "recipe.json").write_text(json.dumps({"name": "mixed", "rules": rules}))
    world.edge("convert", world.tiny("phi4"), "--target", "cpu", "--dry-run", "--recipe", "recipe.json")


@case
def budgets_that_cannot_be_met(world: World) -> None:
    model = world.tiny("phi4-mini")
    for option, value in (
        ("--bits-per-weight", "4.4"), ("--bits-per-weight", "9"), ("--bits-per-weight", "nan"),
        ("--size-mb", "0.1"), ("--size-mb", "1000"),
    ):  # fmt: skip
        world.edge("convert", model, "--target", "android", "--dry-run", option, value)


@case
def two_ways_to_say_how_weights_are_stored(world: World) -> None:
    model = world.tiny("phi4-mini")
    world.edge("convert", model, "-t", "cpu", "--bits-per-weight", "5", "--precision", "int4", "--dry-run")


@case
def a_mixed_recipe(world: World) -> None:
    words = ("convert", world.tiny("phi4-mini"), "-t", "cpu", "-t", "android", "--dry-run")
    # Costs that are measured already are not measured again: no line whose coming depends on the time.
    world.quietly(*words, "--bits-per-weight", "5")
    world.edge(*words, "--bits-per-weight", "5.5")


@case
def weights_that_are_not_finite(world: World) -> None:
    file_of_weights = world.copy("phi4-mini") / "model.safetensors"
    with safe_open(file_of_weights, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
    tensors["model.layers.1.mlp.down_proj.weight"][3, 5] = float("nan")
    save_file(tensors, file_of_weights)
    world.edge("convert", "checkpoint", "-t", "cpu", "--bits-per-weight", "5.5", "--json")

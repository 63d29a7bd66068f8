"""`edge convert --calibrate`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from converters.checkpoint import Checkpoint
from converters.decoder import Weight
from converters.models import describe
from converters.reference import hidden_states
from edge.calibration_text import read_text
from quant.blocks import INT4
from quant.calibrate import Calibration
from quant.codes import CodeStore
from quant.recipe import Recipe
from quant.rtn import quantize
from tests.messages import World, case


def words(world: World, count: int = 700) -> Path:
    path = world.path / "words.txt"
    path.write_text(" ".join(f"word{i % 97} and {i % 89}" for i in range(count)))
    return path


@case
def dry_run(world: World) -> None:
    words(world)
    world.edge("convert", world.tiny("phi4"), "-t", "cpu", "--calibrate", "words.txt", "--dry-run")


@case
def done(world: World) -> None:
    words(world)
    world.edge("convert", world.tiny("phi4"), "-t", "android", "--calibrate", "words.txt", "-o", "b")


@case
def text_cannot_be_used(world: World) -> None:
    world.edge("convert", world.tiny("phi4"), "-t", "cpu", "--calibrate", "nowhere.txt")
    for name, content in (("empty", b""), ("tiny", b"hello there"), ("latin", b"caf\xe9 " * 5000)):
        (world.path / name).write_bytes(content)
        world.edge("convert", world.tiny("phi4"), "-t", "cpu", "--calibrate", name)


@case
def tokenizer_of_another_model(world: World) -> None:
    text = words(world)
    with Checkpoint.open(world.path / world.tiny("phi4")) as checkpoint:
        small = describe(checkpoint)
    object.__setattr__(small, "vocab_size", 20)
    world.call(read_text, text, world.path / "phi4", small)


@case
def nothing_to_calibrate(world: World) -> None:
    words(world)
    arguments = ("convert", world.tiny("phi4"), "-t", "cpu", "--precision", "f16", "--calibrate", "words.txt")
    world.edge(*arguments)


def recipe(world: World, *rules: tuple[str, str, str]) -> Path:
    path = world.path / "recipe.json"
    data = [dict(zip(("pattern", "storage", "method"), rule, strict=True)) for rule in rules]
    path.write_text(json.dumps({"name": "mine", "rules": data}))
    return path


@case
def recipe_wants_calibration(world: World) -> None:
    recipe(world, ("embedding", "int8", "rtn"), ("lm_head", "int8", "rtn"), ("*", "int4", "gptq"))
    world.edge("convert", world.tiny("phi4"), "-t", "cpu", "--recipe", "recipe.json")
    with Checkpoint.open(world.path / "phi4") as checkpoint:
        weight = describe(checkpoint).layers[0].dense.up
        rows = checkpoint.weight_rows(weight, 0, 2)
    world.call(Recipe.preset("int4").calibrated().encode, weight, rows)


@case
def recipe_wants_what_calibration_does_not_reach(world: World) -> None:
    words(world)
    recipe(world, ("*", "int4", "gptq"))
    arguments = (
        "convert",
        world.tiny("phi4"),
        "-t",
        "cpu",
        "--recipe",
        "recipe.json",
        "--calibrate",
        "words.txt",
    )
    world.edge(*arguments)


@case
def inputs_say_nothing(world: World) -> None:
    """A norm whose gain is zero feeds zeros to all that follow it."""
    words(world)
    damaged(world, lambda gain: gain * 0)
    world.edge("convert", "checkpoint", "-t", "cpu", "--calibrate", "words.txt")


@case
def activations_are_no_numbers(world: World) -> None:
    words(world)
    damaged(world, lambda gain: gain + np.float32(3e38))
    world.edge("convert", "checkpoint", "-t", "cpu", "--calibrate", "words.txt")


def damaged(world: World, change: object) -> None:
    """./checkpoint with the first norm's gain changed, in float32."""
    from safetensors.numpy import load_file, save_file

    directory = world.copy("phi4", dtype="f32")
    (file,) = directory.glob("*.safetensors")
    tensors = load_file(file)
    name = "model.layers.0.input_layernorm.weight"
    tensors[name] = change(tensors[name])  # type: ignore[operator]
    save_file(tensors, file, metadata={"format": "pt"})


@case
def what_was_kept_is_damaged(world: World) -> None:
    with Checkpoint.open(world.path / world.tiny("phi4")) as checkpoint:
        decoder = describe(checkpoint)
        weight = decoder.layers[0].dense.up
        store = CodeStore(world.path / "codes")
        world.call(store.rows, weight, INT4, 0, 1)
        store.put(weight, quantize(checkpoint.weight_rows(weight, 0, weight.rows - 1), INT4))
        world.call(store.rows, weight, INT4, 0, 1)
        store.put(weight, quantize(checkpoint.weight_rows(weight, 0, weight.rows), INT4))
        path = store.path(weight)
        path.write_bytes(path.read_bytes()[:-1])
        world.call(store.rows, weight, INT4, weight.rows - 1, weight.rows)
        path.write_bytes(b"\x93NUMPY\x03\x00" + path.read_bytes()[8:])
        world.call(store.rows, weight, INT4, 0, 1)
        walk = Calibration(checkpoint, decoder, np.zeros((1, 8), np.int64), lambda _: INT4, store)
        (world.path / "streams.bin").write_bytes(b"short")
        world.call(walk.restore, world.path / "streams.bin", 1)


@case
def reference_is_no_number(world: World) -> None:
    with Checkpoint.open(world.path / world.tiny("phi4")) as checkpoint:
        decoder = describe(checkpoint)

        def broken(weight: Weight, start: int, rows: NDArray[np.generic]) -> NDArray[np.float32]:
            return rows.astype(np.float32) * np.float32(
                np.nan if weight == decoder.layers[1].dense.down else 1
            )

        world.call(hidden_states, checkpoint, decoder, np.zeros((1, 4), np.int64), transform=broken)

"""`edge prune`: settings that make no run, models and texts that cannot be used, and what a run says."""

from __future__ import annotations

import json
import struct
import sys
from unittest import mock

from tests.messages import World, case

SHORT = ("--steps", "6", "--length", "32", "--window", "2", "--batch", "2")


def words(world: World, count: int = 100) -> str:
    (world.path / "words.txt").write_text(" ".join(f"word{i % 97}" for i in range(count)))
    return "words.txt"


@case
def done(world: World) -> None:
    model, text = world.tiny("phi4"), words(world)
    world.edge("prune", model, "-o", "small", "--neurons", "0.5", "--text", text, "--rate", "0", *SHORT)
    world.edge("prune", "small", "-o", "sparse", "--keep", "0.5", "--text", text, "--rate", "0", *SHORT)


def factored(world: World) -> None:
    options = ("--method", "losparse", "--low-rank", "0.2", "--keep", "0.1", "--text", words(world))
    world.edge("prune", world.tiny("phi4"), "-o", "thin", *options, "--rate", "0", *SHORT)


@case
def factors(world: World) -> None:
    factored(world)
    for target in ("cpu", "windows", "android-npu", "android"):
        world.edge("convert", "thin", "-t", target, "-o", f"bundle-{target}")
    world.edge("convert", "thin", "-t", "cpu", "--calibrate", "words.txt")
    world.edge("prune", "thin", "-o", "thinner", "--keep", "0.5")
    world.edge("heal", "thin")
    train = ("--text", "words.txt", "--steps", "2", "--length", "16", "-o", "taught")
    world.edge("distill", world.tiny("phi4"), "--student", "thin", "--method", "kd", *train)
    world.edge(
        "distill", world.tiny("phi4"), "--student", "thin", "--method", "kd", "--transfer", "2", *train
    )
    world.edge("distill", "thin", "--layers", "1", *train)


@case
def factors_whose_rows_are_no_rows(world: World) -> None:
    factored(world)
    file = world.path / "thin" / "model.safetensors"
    data = bytearray(file.read_bytes())
    length = int.from_bytes(data[:8], "little")
    entry = json.loads(data[8 : 8 + length])["model.layers.0.mlp.down_proj.sparse_rows"]
    at = 8 + length + entry["data_offsets"][0]
    for value in (0.5, -1.0, float("nan"), 1e6):
        data[at : at + 4] = struct.pack("<f", value)
        file.write_bytes(data)
        world.edge("convert", "thin", "-t", "cpu", "--dry-run")


@case
def settings_that_make_no_run(world: World) -> None:
    model = world.tiny("phi4")
    for options in (
        (),
        ("--keep", "0.5", "--neurons", "0.5"),
        ("--keep", "1.5"),
        ("--heads", "0"),
        ("--keep", "0.5", "--warmup", "0.7"),
        ("--keep", "0.5", "--beta1", "1"),
        ("--method", "losparse", "--keep", "0.1"),
        ("--method", "losparse", "--low-rank", "0.2", "--keep", "0.1", "--score", "magnitude"),
        ("--low-rank", "0.1", "--keep", "0.5"),
    ):
        world.edge("prune", model, "-o", "small", *options)


@case
def text_cannot_be_used(world: World) -> None:
    model = world.tiny("phi4")
    words(world, 5)
    for name in ("nowhere.txt", "words.txt"):
        world.edge("prune", model, "-o", "small", "--keep", "0.5", "--text", name)


@case
def another_architecture(world: World) -> None:
    world.edge(
        "prune", world.tiny("phi3-small"), "-o", "small", "--keep", "0.5", "--text", words(world), *SHORT
    )


@case
def tokenizer_of_another_model(world: World) -> None:
    file = world.copy("phi4") / "tokenizer.json"
    data = json.loads(file.read_text())
    data["model"]["vocab"] = {word: i + 5000 for word, i in data["model"]["vocab"].items()}
    file.write_text(json.dumps(data))
    world.edge("prune", "checkpoint", "-o", "small", "--keep", "0.5", "--text", words(world), *SHORT)


@case
def without_torch(world: World) -> None:
    with mock.patch.dict(sys.modules, {"torch": None, "transformers": None}):
        world.edge("prune", world.tiny("phi4"), "-o", "small", "--keep", "0.5")


@case
def output_is_taken(world: World) -> None:
    (world.path / "small").mkdir()
    (world.path / "small" / "notes.txt").touch()
    world.edge("prune", world.tiny("phi4"), "-o", "small", "--keep", "0.5", "--text", words(world), *SHORT)

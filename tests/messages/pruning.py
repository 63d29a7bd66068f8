"""`edge prune`: settings that make no run, models and texts that cannot be used, and what a run says."""

from __future__ import annotations

import json
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
    with mock.patch("edge.prune.find_spec", return_value=None):
        world.edge("prune", world.tiny("phi4"), "-o", "small", "--keep", "0.5")


@case
def output_is_taken(world: World) -> None:
    (world.path / "small").mkdir()
    (world.path / "small" / "notes.txt").touch()
    world.edge("prune", world.tiny("phi4"), "-o", "small", "--keep", "0.5", "--text", words(world), *SHORT)

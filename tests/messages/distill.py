"""`edge distill`: students that cannot be made, texts without what they need, trainings that end early."""

from __future__ import annotations

import json
import sys
from typing import Any
from unittest import mock

from benchmarks.random_checkpoint import SHAPES, write_checkpoint
from quant.distill.state import save_state
from tests.encoder_checkpoint import write_encoder
from tests.messages import World, case

SHORT = ("--steps", "3", "--length", "8", "--batch", "2", "-o", "student")


def text(world: World, words: str = "It was very good, and very dull. " * 40) -> str:
    (world.path / "text.txt").write_text(words)
    return "text.txt"


def lines(world: World, *rows: Any) -> str:
    (world.path / "lines.jsonl").write_text(
        "\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows)
    )
    return "lines.jsonl"


def encoder(world: World, name: str = "bert", **options: Any) -> str:
    write_encoder(world.path / name, **options)
    return name


@case
def plan(world: World) -> None:
    words = text(world)
    world.edge("distill", world.tiny("phi4-mini"), "--text", words, "--layers", "1", "--dry-run", *SHORT)
    rows = lines(world, {"text": "it was good", "label": "yes"}, {"text": "not very good", "label": 0})
    world.edge("distill", encoder(world), "--text", rows, "--layers", "2", "--dry-run", *SHORT)


@case
def a_student(world: World) -> None:
    world.edge("distill", world.tiny("phi4-mini"), "--text", text(world), "--layers", "1", *SHORT)


@case
def students_that_cannot_be(world: World) -> None:
    teacher, words = world.tiny("phi4-mini"), text(world)
    rows = lines(world, {"text": "it was good", "label": 1})
    for options in ((), ("--layers", "9"), ("--hidden", "100")):
        world.edge("distill", teacher, "--text", words, *options, *SHORT)
    world.edge("distill", encoder(world), "--text", rows, "--hidden", "24", *SHORT)
    config = world.path / "bert" / "config.json"
    config.write_text(config.read_text().replace('"model_type": "bert"', '"model_type": "deberta-v2"'))
    world.edge("distill", "bert", "--text", rows, "--hidden", "16", *SHORT)
    world.edge(
        "distill",
        encoder(world),
        "--text",
        rows,
        "--hidden",
        "32",
        "--layers",
        "2",
        "--student",
        "bert",
        *SHORT,
    )


@case
def transfer_into_a_cut(world: World) -> None:
    words = ("--text", text(world), "--layers", "1", "--transfer", "4")
    world.edge("distill", world.tiny("phi4-mini"), *words, *SHORT)


@case
def transfer_into_a_student_of_other_sizes(world: World) -> None:
    words = ("--text", text(world), "--transfer", "4", *SHORT)
    for name, changes in {"wide": {"intermediate_size": 512}, "heads": {"num_key_value_heads": 1}}.items():
        write_checkpoint(world.path / name, SHAPES["phi4-mini"] | changes)
        world.edge("distill", world.tiny("phi4-mini"), "--student", name, *words)


@case
def models_that_are_not_distilled(world: World) -> None:
    directory = world.copy("phi4-mini")
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"architectures": ["BertModel"]}))
    world.edge("distill", "checkpoint", "--text", text(world), "--layers", "1", *SHORT)


@case
def pairs_that_do_not_fit(world: World) -> None:
    words, rows = text(world), lines(world, {"text": "it was good", "label": 1})
    teacher = world.tiny("phi4-mini")
    spm, large = world.tiny("phi3-mini-4k"), encoder(world, "large", layers=5)
    small, other = encoder(world), encoder(world, "other", layers=2, classes=("no", "yes", "perhaps"))
    world.heading("different tokenizers")
    world.edge("distill", teacher, "--text", words, "--student", spm, *SHORT)
    world.heading("different kinds, classes, depths")
    world.edge("distill", teacher, "--text", words, "--student", small, *SHORT)
    world.edge("distill", small, "--text", rows, "--student", other, *SHORT)
    world.edge("distill", small, "--text", rows, "--student", large, *SHORT)


@case
def texts_that_are_not_there(world: World) -> None:
    teacher = world.tiny("phi4-mini")
    world.edge("distill", teacher, "--text", "nowhere.txt", "--layers", "1", *SHORT)
    world.edge("distill", teacher, "--text", text(world, "a"), "--layers", "1", *SHORT)


@case
def labels_that_are_not_there(world: World) -> None:
    bert, good = encoder(world), {"text": "good", "label": "yes"}
    for rows in ((good, {"text": "bad"}), (good, {"text": "bad", "label": "maybe"}), ({"text": "a", "label": 2},),
                 (good, "text alone"), ("",)):  # fmt: skip
        world.edge("distill", bert, "--text", lines(world, *rows), "--layers", "2", *SHORT)
    (world.path / bert / "tokenizer.json").unlink()
    world.edge("distill", bert, "--text", lines(world, good), "--layers", "2", *SHORT)


@case
def a_loss_that_is_no_number(world: World) -> None:
    options = ("--method", "ft", "--rate", "1e30", "--save-every", "1", "--layers", "1")
    world.edge("distill", world.tiny("phi4-mini"), "--text", text(world), *options, *SHORT)


@case
def states_of_other_runs(world: World) -> None:
    teacher, words = world.tiny("phi4-mini"), text(world)
    options = ("--method", "ft", "--layers", "1", "--save-every", "1")
    state = world.path / ".student.edge-distill" / "student.pt"
    save_state(state, {}, step=1, run="another")
    world.edge("distill", teacher, "--text", words, *options, *SHORT)
    state.write_bytes(b"no archive")
    world.edge("distill", teacher, "--text", words, *options, *SHORT)


@case
def machines_without(world: World) -> None:
    teacher, words = world.tiny("phi4-mini"), text(world)
    with mock.patch.dict(sys.modules, {"torch": None}):
        world.edge("distill", teacher, "--text", words, "--layers", "1", *SHORT)
    with mock.patch("torch.cuda.is_available", return_value=False):
        world.edge("distill", teacher, "--text", words, "--layers", "1", "--device", "cuda", *SHORT)

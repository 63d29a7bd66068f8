"""`edge distill --method moebert`: what it says, splits that cannot be, and where its models have no place."""

from __future__ import annotations

import json
import struct
import sys
from unittest import mock

from tests.encoder_checkpoint import write_encoder
from tests.messages import World, case

MOEBERT = ("--method", "moebert", "--steps", "2", "--length", "8", "--batch", "2", "-o", "parts")


def text(world: World) -> str:
    (world.path / "text.txt").write_text("It was very good, and very dull. " * 40)
    return "text.txt"


def labelled(world: World) -> str:
    rows = [{"text": "it was good", "label": "yes"}, {"text": "not very good", "label": 0}]
    (world.path / "lines.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return "lines.jsonl"


def made(world: World) -> None:
    options = ("--rate", "0", *MOEBERT)
    world.edge("distill", world.tiny("phi3-mini-4k"), "--text", text(world), *options)


@case
def parts(world: World) -> None:
    world.edge("distill", world.tiny("phi3-mini-4k"), "--text", text(world), "--dry-run", *MOEBERT)
    made(world)


@case
def parts_of_an_encoder(world: World) -> None:
    write_encoder(world.path / "bert")
    for more in (("--dry-run",), ("--rate", "0")):
        world.edge("distill", "bert", "--text", labelled(world), *more, *MOEBERT)


@case
def an_encoder_s_bundle(world: World) -> None:
    write_encoder(world.path / "bert")
    world.edge("distill", "bert", "--text", labelled(world), "--rate", "0", *MOEBERT)
    world.edge("convert", "parts", "-t", "cpu", "-o", "bundle", "--no-proof")
    world.edge("distill", "parts", "--text", "lines.jsonl", "--layers", "1", *MOEBERT[2:-1], "again")


@case
def splits_that_cannot_be(world: World) -> None:
    teacher, words = world.tiny("phi3-mini-4k"), text(world)
    for options in (
        ("--shared", "64"),
        ("--experts", "30"),
        ("--expert-size", "96", "--shared", "8"),
        ("--experts", "3", "--expert-size", "200", "--shared", "2"),
    ):
        world.edge("distill", teacher, "--text", words, *options, *MOEBERT)


@case
def another_encoder(world: World) -> None:
    write_encoder(world.path / "bert")
    config = json.loads((world.path / "bert" / "config.json").read_text())
    changes = {"model_type": "roberta", "architectures": ["RobertaForSequenceClassification"]}
    (world.path / "bert" / "config.json").write_text(json.dumps(config | changes))
    world.edge("distill", "bert", "--text", labelled(world), *MOEBERT)


@case
def options_of_one_method_for_another(world: World) -> None:
    teacher, words = world.tiny("phi3-mini-4k"), text(world)
    world.edge("distill", teacher, "--text", words, "--layers", "1", *MOEBERT)
    world.edge("distill", teacher, "--text", words, "--layers", "1", "--routing", "hash", "-o", "parts")


@case
def parts_without_torch(world: World) -> None:
    with mock.patch.dict(sys.modules, {"torch": None}):
        world.edge("distill", world.tiny("phi3-mini-4k"), "--text", text(world), *MOEBERT)


@case
def parts_without_a_gpu(world: World) -> None:
    with mock.patch("torch.cuda.is_available", return_value=False):
        teacher, words = world.tiny("phi3-mini-4k"), text(world)
        world.edge("distill", teacher, "--text", words, "--device", "cuda", *MOEBERT)


@case
def places_without_routing(world: World) -> None:
    made(world)
    for target in ("cpu", "windows", "android-npu", "android"):
        world.edge("convert", "parts", "-t", target, "-o", f"bundle-{target}")
    world.edge("convert", "parts", "-t", "cpu", "--calibrate", "text.txt")
    world.edge("convert", "parts", "-t", "cpu", "--bits-per-weight", "5")
    world.edge("distill", "parts", "--text", "text.txt", *MOEBERT[:-1], "again")
    world.edge("prune", "parts", "-o", "thinner", "--keep", "0.5")
    world.edge("heal", "parts", "-o", "healed", "--text", "text.txt")


@case
def tables_of_no_experts(world: World) -> None:
    made(world)
    file = world.path / "parts" / "model.safetensors"
    data = bytearray(file.read_bytes())
    length = int.from_bytes(data[:8], "little")
    entry = json.loads(data[8 : 8 + length])["model.layers.0.mlp.table"]
    at = 8 + length + entry["data_offsets"][0]
    for value in (0.5, -1.0, float("nan"), 4.0):
        data[at : at + 4] = struct.pack("<f", value)
        file.write_bytes(data)
        world.edge("convert", "parts", "-t", "cpu", "--dry-run")

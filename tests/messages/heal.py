"""Healing and upcycling: what cannot be, and a training that comes to nothing."""

from __future__ import annotations

import sys
from unittest import mock

from converters.checkpoint import Checkpoint
from converters.models import describe
from quant.distill.upcycle import Upcycling, upcycle
from tests.messages import World, case


@case
def a_healed_model(world: World) -> None:
    world.edge("heal", world.tiny("phi4-mini"), "--rank", "4", "-o", "healed")
    world.edge("heal", world.tiny("phi4-mini"), "--rank", "4", "-o", "healed")
    words = ("convert", "healed", "--adapter", "healed/adapter", "-t", "cpu", "--dry-run", "--context", "64")
    world.edge(*words)
    world.edge(*words, "--precision", "int8")


@case
def nothing_to_make_up_for(world: World) -> None:
    world.edge("heal", world.tiny("phi4-mini"), "--precision", "bf16")


@case
def targets_and_models_that_have_no_adapters(world: World) -> None:
    world.edge("heal", world.tiny("phi4-mini"), "-t", "windows")
    world.edge("heal", world.tiny("phi3.5-moe"))


@case
def a_teacher_of_another_tokenizer(world: World) -> None:
    world.edge("heal", world.tiny("phi4-mini"), "--teacher", world.tiny("phi3-mini-4k"))


@case
def training_without_torch(world: World) -> None:
    with mock.patch.dict(sys.modules, {"torch": None, "peft": None}):
        world.edge("heal", world.tiny("phi4-mini"), "--method", "adalora")


@case
def adalora_that_cannot_share_ranks_out(world: World) -> None:
    words = ("heal", world.tiny("phi4-mini"), "--method", "adalora", "--rank", "1", "--batch", "1")
    world.edge(*words, "--steps", "0")
    world.edge(*words, "--steps", "9")
    world.edge(*words, "--steps", "10", "--rate", "0")


@case
def upcycling_of_partly_rotated_heads(world: World) -> None:
    with Checkpoint.open(world.path / world.tiny("phi4-mini")) as checkpoint:
        world.call(upcycle, checkpoint, describe(checkpoint), world.path, Upcycling())

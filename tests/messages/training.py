"""`edge distill`: options of one method or optimizer given to another, and launches of several processes."""

from __future__ import annotations

import os
from unittest import mock

import torch

from quant.distill.launch import Place
from quant.distill.parallel import Team
from tests.encoder_checkpoint import write_encoder
from tests.messages import World, case
from tests.messages.distill import SHORT, lines, text


def encoder(world: World) -> tuple[str, ...]:
    write_encoder(world.path / "bert")
    rows = lines(world, {"text": "it was good", "label": "yes"}, {"text": "it was dull", "label": "no"})
    return ("distill", "bert", "--text", rows)


@case
def camero(world: World) -> None:
    options = ("--method", "camero", "--perturbation", "r3f", "--heads", "2", "--layers", "2")
    world.edge(*encoder(world), *options, *SHORT)
    world.heading("where it has no place")
    words = ("--text", text(world), "--layers", "1")
    world.edge("distill", world.tiny("phi4-mini"), "--method", "camero", *words, *SHORT)
    world.edge(*encoder(world), "--layers", "2", "--consistency-target", "pairwise", *SHORT)
    world.edge(*encoder(world), "--layers", "2", "--method", "camero", "--filter-steps", "4", *SHORT)


@case
def optimizers(world: World) -> None:
    lean = ("--method", "kd", "--layers", "2", "--optimizer", "cosmos")
    world.edge(*encoder(world), *lean, *SHORT)
    world.heading("what does not go together")
    world.edge(*encoder(world), *lean, "--mup", "16", *SHORT)
    words = ("--text", text(world), "--transfer", "4", "--mup", "16")
    world.edge("distill", world.tiny("phi4-mini"), *words, *SHORT)


@case
def launches(world: World) -> None:
    two = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}
    with mock.patch.dict(os.environ, two):
        world.edge("convert", world.tiny("phi4-mini"), "--target", "cpu", "-o", "bundle")
        words = ("--text", text(world))
        world.edge("distill", world.tiny("phi4-mini"), "--method", "moe", *words, *SHORT)
        world.edge(*encoder(world), "--layers", "2", *SHORT, "--batch", "1")
    with mock.patch.dict(os.environ, two | {"ACCELERATE_USE_FSDP": "true"}):
        world.edge(*encoder(world), "--layers", "2", *SHORT)
    with mock.patch.dict(os.environ, two | {"ACCELERATE_MIXED_PRECISION": "bf16"}):
        world.edge(*encoder(world), "--layers", "2", *SHORT)


@case
def machines_that_share_no_state(world: World) -> None:
    team = Team(Place(0, 2, 0), torch.device("cpu"))
    with mock.patch.object(Team, "_all", return_value=[40, 0]):
        world.call(team.begin, torch.nn.Linear(1, 1), 40)

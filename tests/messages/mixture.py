"""`edge distill --method moe`: what it says, and models that PhiMoE's layout has no place for."""

from __future__ import annotations

import sys
from unittest import mock

from tests.messages import World, case

MOE = ("--method", "moe", "--steps", "2", "--length", "8", "--batch", "2", "-o", "mixture")


def text(world: World) -> str:
    (world.path / "text.txt").write_text("It was very good, and very dull. " * 40)
    return "text.txt"


@case
def a_mixture(world: World) -> None:
    world.edge("distill", world.tiny("phi3-mini-4k"), "--text", text(world), "--dry-run", *MOE)
    world.edge("distill", world.tiny("phi3-mini-4k"), "--text", text(world), *MOE)


@case
def models_that_have_no_place(world: World) -> None:
    for name in ("phi4-mini", "phi3.5-moe"):
        world.edge("distill", world.tiny(name), "--text", text(world), *MOE)


@case
def options_of_other_methods(world: World) -> None:
    world.edge("distill", world.tiny("phi3-mini-4k"), "--text", text(world), "--layers", "1", *MOE)


@case
def a_mixture_without_torch(world: World) -> None:
    with mock.patch.dict(sys.modules, {"torch": None}):
        world.edge("distill", world.tiny("phi3-mini-4k"), "--text", text(world), *MOE)

"""Phi-4-mini-flash-reasoning: configs that it cannot have, and the targets that cannot take it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.messages import World, add, case


def _config(changes: dict[str, Any]) -> Callable[[World], None]:
    def run(world: World) -> None:
        file = world.copy("phi4-flash") / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))
        world.edge("convert", "checkpoint", "--target", "cpu", "--dry-run")

    return run


for name, changes in {
    "architecture": {"architectures": ["Phi4FlashModel"]},
    "layers": {"num_hidden_layers": 6},
    "pairs": {"num_key_value_heads": 1},
    "another rhythm": {"mb_per_layer": 4},
}.items():
    add(f"hybrid/config {name}", _config(changes))


@case
def narrow_heads(world: World) -> None:
    checkpoint = world.tiny("phi4-flash", num_attention_heads=32, num_key_value_heads=2)
    world.edge("convert", checkpoint, "--target", "cpu", "--dry-run")


@case
def other_targets(world: World) -> None:
    checkpoint = world.tiny("phi4-flash")
    for target in ("android", "android-npu", "windows"):
        world.edge("convert", checkpoint, "--target", target, "--dry-run")
    world.edge("convert", checkpoint, "--target", "cpu", "--calibrate", "--dry-run")

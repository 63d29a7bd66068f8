"""Bad usage, and what is said when something unforeseen happens."""

from __future__ import annotations

from unittest import mock

import edge.targets
from tests.messages import World, case


@case
def bad_usage(world: World) -> None:
    for line in (
        "cnvert", "--nope", "convert", "convert x", "convert x -t", "convert x -t cpu --precision int3",
        "convert x -t cpu --context 0", "convert x -t cpu --threads many", "verify", "inspect a b", "targets --jsn",
    ):  # fmt: skip
        world.edge(*line.split())


@case
def version(world: World) -> None:
    world.edge("--version")


@case
def unforeseen(world: World) -> None:
    for error in (
        RuntimeError("what\nhappened"), KeyboardInterrupt(), EOFError(), MemoryError(),
        BrokenPipeError(32, "Broken pipe"), OSError(28, "No space left on device", "/x"),
        PermissionError(13, "Permission denied", "/x"), OSError(5, "I/O error"),
    ):  # fmt: skip
        with mock.patch.object(edge.targets, "load_targets", side_effect=error):
            world.heading(type(error).__name__)
            world.edge("targets")

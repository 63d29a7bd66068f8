"""`edge push`: what it says, and phones that are not there, full, or lost on the way. The phone is a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from edge.packaging import adb
from tests.edge import fake_adb
from tests.messages import World, case

MODELS = "sdcard/Android/data/dev.edge.app/files/models"


@contextmanager
def phone(world: World) -> Iterator[Path]:
    """A model, ./model.gguf's bundle, and a phone to bring it to."""
    world.quietly(
        "convert", world.tiny("phi4-mini"), "-t", "android", "--context", "64", "--no-proof", "-o", "bundle"
    )
    folder = fake_adb.install(world.path)
    with mock.patch.dict(os.environ, {"PATH": f"{world.path / 'bin'}:{os.environ['PATH']}"}):
        yield folder


def ready(folder: Path) -> None:
    (folder / "devices").write_text("emu1\tdevice\n")


@case
def a_model_goes_to_a_phone(world: World) -> None:
    with phone(world) as folder:
        (folder / "break_after").write_text("5000")
        world.edge("push", "bundle")
        ready(folder)
        world.edge("push", "bundle")
        world.edge("push", "bundle")


@case
def no_phone(world: World) -> None:
    with phone(world) as folder:
        with mock.patch.dict(os.environ, {"PATH": str(world.path)}):
            world.edge("push", "bundle")
        (folder / "devices").write_text("")
        world.edge("push", "bundle")
        (folder / "devices").write_text("emu1\tunauthorized\n")
        world.edge("push", "bundle")
        world.edge("push", "bundle", "--serial", "emu1")
        (folder / "devices").write_text("emu1\tdevice\nemu2\tdevice\n")
        world.edge("push", "bundle")
        world.edge("push", "bundle", "--serial", "emu3")
        (world.path / "bin" / "adb").write_text("#!/bin/sh\nexec sleep 60\n")
        with mock.patch.object(adb, "TIMEOUT", 0.5):
            world.edge("push", "bundle")
        (world.path / "bin" / "adb").write_text("no program")
        world.edge("push", "bundle")


@case
def a_phone_that_the_app_is_not_on(world: World) -> None:
    with phone(world) as folder:
        (folder / "packages").write_text("")
        world.edge("push", "bundle")
        (folder / "abi").write_text("x86_64")
        world.edge("push", "bundle")


@case
def a_phone_that_is_full(world: World) -> None:
    with phone(world) as folder:
        (folder / "free").write_text("100")
        world.edge("push", "bundle")
        (folder / "free").write_text("none")
        world.edge("push", "bundle")
        (folder / "free").write_text("9000000")
        (folder / "full_after").write_text("3000")
        world.edge("push", "bundle")


@case
def a_phone_that_refuses_its_folder(world: World) -> None:
    with phone(world) as folder:
        (folder / MODELS).touch()
        world.edge("push", "bundle")
        (folder / MODELS).unlink()
        (folder / MODELS).parent.rmdir()
        world.edge("push", "bundle")


@case
def bytes_that_arrive_wrong(world: World) -> None:
    with phone(world) as folder:
        (folder / "flip").write_text("70")
        world.edge("push", "bundle")
        (folder / "break_after").write_text("5000")
        world.edge("push", "bundle")
        ready(folder)
        part = next((folder / MODELS).glob("*/model.gguf.part"))
        part.write_bytes(b"x" * 5000)
        (folder / "flips").write_text("70")
        world.edge("push", "bundle")


@case
def a_phone_that_is_lost(world: World) -> None:
    with phone(world) as folder:
        (folder / "short_after").write_text("100")
        world.edge("push", "bundle")
        (folder / "hang").touch()
        with mock.patch.object(adb, "TIMEOUT", 0.5):
            world.edge("push", "bundle")
        (folder / "hang").unlink()
        (folder / "gone").touch()
        world.edge("push", "bundle")

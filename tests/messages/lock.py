"""models.lock, `edge lock` and sources that lie on this machine."""

from __future__ import annotations

from pathlib import Path

import edge.lock
from edge.lock import LockedFile, LockedModel
from tests.messages import World, case

SHA = "0" * 64
_MODEL = """[[model]]
name = "{name}"
source = "file:m"
[[model.file]]
path = "{path}"
size = {size}
sha256 = "{sha}"
"""


def entry(name: str = "a", path: str = "x", size: int = 1, sha: str = SHA) -> str:
    return _MODEL.format(name=name, path=path, size=size, sha=sha)


def lock(world: World, text: str) -> Path:
    file = world.path / "models.lock"
    file.write_text(text)
    return file


@case
def damaged(world: World) -> None:
    for name, text in {
        "another version": "version = 2\n",
        "no TOML": "version = 1\n[[model]",
        "no sources": 'version = 1\n[[model]]\nname = "a"\n',
        "a model's name": "version = 1\n" + entry("A b"),
        "a path that leaves": "version = 1\n" + entry(path="../x"),
        "a size": "version = 1\n" + entry(size=-1),
        "a hash": "version = 1\n" + entry(sha="00"),
        "an unknown key": "version = 1\n"
        + entry().replace("[[model.file]]", 'colour = "red"\n[[model.file]]'),
        "a source that is no string": "version = 1\n" + entry().replace('"file:m"', "3"),
        "the same file twice": "version = 1\n"
        + entry()
        + entry().partition("[[model.file]]")[2].join(["[[model.file]]", ""]),
        "a name twice": "version = 1\n" + entry() + entry(),
    }.items():
        world.heading(name)
        lock(world, text)
        world.edge("pull", "a")


@case
def too_large(world: World) -> None:
    with lock(world, "").open("r+b") as file:
        file.truncate(1 << 30)
    world.edge("pull", "a")


@case
def cannot_be_read_or_written(world: World) -> None:
    world.call(edge.lock.read, world.path / "none.lock")
    (world.path / "models.lock").mkdir()
    model = LockedModel("a", "file:m", None, (LockedFile("x", 1, SHA),))
    world.call(edge.lock.write, world.path / "models.lock", {"a": model})


@case
def nothing_to_lock(world: World) -> None:
    lock(world, "version = 1\n")
    world.edge("lock")
    world.edge("lock", "nobody")


@case
def unknown_name_and_source(world: World) -> None:
    lock(world, "version = 1\n" + entry("known-model"))
    world.edge("pull", "nobody")
    world.edge("lock", "nobody", "ftp:x")
    world.edge("pull", "hf:owner/name", "--frozen")
    world.edge("convert", "hf:owner/name", "--target", "cpu", "--locked")


@case
def file_source(world: World) -> None:
    world.edge("lock", "m", "file:none")
    (world.path / "empty").mkdir()
    world.edge("lock", "m", "file:empty")
    world.copy("phi4")
    world.edge("lock", "m", "file:checkpoint")
    world.edge("lock", "--check")
    world.edge("pull", "m")


@case
def file_source_that_changed(world: World) -> None:
    checkpoint = world.copy("phi4")
    world.edge("lock", "m", "file:checkpoint")
    data = bytearray((checkpoint / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (checkpoint / "model.safetensors").write_bytes(data)
    world.edge("lock", "--check")
    world.edge("pull", "m", "--locked")
    world.edge("convert", "m", "--target", "cpu")
    (checkpoint / "added.json").write_text("{}")
    world.edge("pull", "m")


@case
def another_model_of_that_name(world: World) -> None:
    lock(world, "version = 1\n" + entry("checkpoint"))
    world.copy("phi4")
    world.edge("pull", "file:checkpoint")

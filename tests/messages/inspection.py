"""`edge inspect` and `edge verify`: what is shown, and files that are not what they should be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import edge.inspection.protobuf as protobuf
from tests.messages import World, case


def bundle(world: World, *targets: str) -> Path:
    """./b, unproven."""
    flags = [word for target in targets or ("cpu", "android") for word in ("--target", target)]
    world.quietly("convert", world.tiny("phi4"), *flags, "-o", "b", "--no-proof", "--threads", "1")
    return world.path / "b"


@case
def checkpoint(world: World) -> None:
    world.edge("inspect", world.tiny("phi4-mini"))


@case
def checkpoint_that_cannot_be_converted(world: World) -> None:
    file = world.copy("phi4") / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_type": "llama"}))
    world.edge("inspect", "checkpoint")


@case
def nothing_that_is_known(world: World) -> None:
    world.edge("inspect", "nowhere")
    world.edge("inspect", ".")
    (world.path / "x.txt").write_text("hello")
    world.edge("inspect", "x.txt")
    world.tiny("phi4")
    world.edge("inspect", "phi4/model.safetensors")


@case
def bundle_with_a_damaged_variant(world: World) -> None:
    directory = bundle(world)
    shutil.rmtree(directory / "onnx-int4")
    next(directory.glob("*.gguf")).write_bytes(b"GGUF")
    world.edge("inspect", "b")


@case
def verify_altered_files(world: World) -> None:
    directory = bundle(world, "android")
    (directory / "foreign.txt").write_text("")
    file = next(directory.glob("*.gguf"))
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    world.edge("verify", "b")
    (directory / "foreign.txt").unlink()
    file.write_bytes(data[:-1])
    world.edge("verify", "b")
    file.unlink()
    world.edge("verify", "b")


@case
def damaged_manifest(world: World) -> None:
    world.path.joinpath("b").mkdir()
    world.edge("verify", "b")
    file = world.path / "b" / "manifest.json"
    variant = {
        "name": "v",
        "format": "gguf",
        "path": "../../etc/passwd",
        "targets": [],
        "context_length": 1,
        "precision": "int4",
        "recipe": {},
    }
    good = variant | {"path": "v", "targets": ["cpu"]}
    sound = {"format": 1, "name": "b", "variants": [good], "files": {}, "proof": "unproven: failed"}
    for manifest in (
        {"format": 9},
        {"format": 1},
        sound | {"variants": [variant]},
        sound | {"variants": [variant | {"path": "v", "precision": "int4", "targets": []}]},
        sound | {"variants": [variant | {"path": "v", "targets": ["cpu"], "format": "elf"}]},
        sound | {"files": {"x": {}}},
        sound | {"variants": []},
        sound | {"variants": [good, good]},
        sound | {"proof": "passed"},
        sound | {"proof": "passed \x1b[31m"},
    ):
        file.write_text(json.dumps(manifest))
        world.edge("inspect", "b")
    with file.open("r+b") as stream:
        stream.truncate(1 << 30)
    world.edge("verify", "b")


def message(number: int, payload: bytes) -> bytes:
    """A length-delimited field."""
    length, data = len(payload), b""
    while length > 127:
        data, length = data + bytes([length & 127 | 128]), length >> 7
    return bytes([number << 3 | 2]) + data + bytes([length]) + payload


def initializer(*fields: bytes) -> bytes:
    return message(7, message(5, b"".join(fields)))


def external(**entries: str) -> bytes:
    return b"".join(message(13, message(1, k.encode()) + message(2, v.encode())) for k, v in entries.items())


def nested(depth: int) -> bytes:
    data = b""
    for _ in range(depth):
        data = message(1, message(5, message(6, data)))
    return message(7, data)


@case
def hostile_graphs(world: World) -> None:
    for name, data in {
        "empty": b"",
        "no number": b"\xff" * 20,
        "a length beyond the end": b"\x3a\xff\xff\xff\xff\x7f",
        "cut inside a number": b"\x0d\x00",
        "group fields": b"\x3b",
        "a name of a megabyte": initializer(message(8, b"n" * (1 << 20))),
        "dimensions without end": initializer(b"\x08\x02" * 100),
        "packed dimensions without end": initializer(message(1, b"\x02" * 100)),
        "branches without end": nested(20),
        "data outside of the folder": initializer(external(location="../../../etc/passwd")),
        "data at no place": initializer(external(location="d", offset="-1")),
    }.items():
        (world.path / "x.onnx").write_bytes(data)
        world.heading(name)
        world.edge("inspect", "x.onnx")


@case
def graph_of_too_many_fields(world: World) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protobuf, "MAX_FIELDS", 10)  # five million take seconds
        (world.path / "x.onnx").write_bytes(b"\x08\x01" * 20)
        world.edge("inspect", "x.onnx")

"""`edge report`: what is told of files that no page can be made from."""

from __future__ import annotations

import json

from tests.messages import World, case
from tests.messages.inspection import bundle


@case
def made_from_the_files_alone(world: World) -> None:
    bundle(world)
    world.edge("report", "b")


@case
def against_a_checkpoint(world: World) -> None:
    bundle(world, "cpu")
    world.edge("report", "b", "--against", "phi4", "--threads", "1", "-o", "page.html")


@case
def no_bundle(world: World) -> None:
    world.edge("report", "nowhere")


@case
def file_that_is_no_benchmark(world: World) -> None:
    bundle(world, "android")
    (world.path / "bench.json").write_text('{"artifacts": []}')
    world.edge("report", "b", "--bench", "bench.json")


@case
def bundle_that_lost_a_variant(world: World) -> None:
    directory = bundle(world, "android")
    next(directory.glob("*.gguf")).unlink()
    world.edge("report", "b")


@case
def bundle_with_a_damaged_story(world: World) -> None:
    directory = bundle(world, "android")
    (directory / "proof.json").write_text('{"variants": {"gguf-int4": {"passed": true}}}')
    world.edge("report", "b")
    file = directory / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"source": "somewhere"}))
    world.edge("report", "b")


@case
def manifest_with_damaged_memory(world: World) -> None:
    file = bundle(world, "android") / "manifest.json"
    manifest = json.loads(file.read_text())
    for variant in manifest["variants"]:
        variant["device_memory"] = {"weights": "much"}
    file.write_text(json.dumps(manifest))
    world.edge("report", "b")

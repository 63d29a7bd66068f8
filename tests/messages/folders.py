"""`edge package --app web` and `--app ios`: what is told of bundles and machines that no such app can be made of."""

from __future__ import annotations

from pathlib import Path

import pytest
from gguf import GGUFWriter

from converters.gguf import split as splitting
from converters.gguf import strip
from edge.packaging import app_folder, web, web_model
from tests.messages import World, case
from tests.messages.inspection import bundle

APPS = ("web", "ios")


@case
def no_gguf_in_the_bundle(world: World) -> None:
    bundle(world, "cpu")
    for app in APPS:
        world.edge("package", "b", "--app", app, "-o", "out")


@case
def option_of_another_app(world: World) -> None:
    bundle(world, "android")
    world.edge("package", "b", "--app", "web", "--keystore", "my.jks")


@case
def too_large_for_a_browser(world: World) -> None:
    bundle(world, "android")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(web, "MAX_MEMORY_BYTES", 1)
        world.edge("package", "b", "--app", "web", "-o", "site")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(web, "MAX_FILE_BYTES", 1000)
        world.edge("package", "b", "--app", "web", "-o", "site")
    assert not (world.path / "site").exists()


@case
def parts_without_a_network(world: World) -> None:
    bundle(world, "android")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGE_CACHE_DIR", str(world.path / "cache"))
        patch.setenv("NPM_CONFIG_REGISTRY", "http://127.0.0.1:9/")
        for app in APPS:
            world.edge("package", "b", "--app", app, "-o", "out")
    assert not (world.path / "out").exists()


@case
def installation_without_apps(world: World) -> None:
    bundle(world, "android")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app_folder, "APPS", Path("/nonexistent"))
        world.edge("package", "b", "--app", "web", "-o", "site")


@case
def place_that_holds_something_else(world: World) -> None:
    bundle(world, "android")
    (world.path / "site").mkdir()
    (world.path / "site" / "thesis.txt").write_text("mine")
    world.edge("package", "b", "--app", "web", "-o", "site")
    world.edge("package", "b", "--app", "web", "-o", "b")
    project = world.path / "project"
    project.mkdir()
    (project / "edge-app.json").write_text('{"app": "ios", "files": {}}')
    world.edge("package", "b", "--app", "web", "-o", "project")
    (project / "thesis.txt").write_text("mine")
    world.edge("package", "b", "--app", "ios", "-o", "project")


@case
def splitting_a_shard(world: World) -> None:
    directory = bundle(world, "android")
    source = next(directory.glob("*.gguf"))
    (world.path / "shards").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(splitting, "MAX_SHARDS", 1)
        world.call(splitting.split, source, world.path / "shards", "m", shard_bytes=1)
    first, *_ = splitting.split(source, world.path / "shards", "m", shard_bytes=1)
    world.call(splitting.split, first, world.path / "shards", "n", shard_bytes=1)


@case
def vocabulary_with_damaged_rules(world: World) -> None:
    writer = GGUFWriter(world.path / "x.gguf", "phi3")
    writer.add_string(strip.KEY, "{}")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    world.call(web_model.describe, world.path / "x.gguf")

"""`edge bench`: what it cannot measure, and engines that end."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from unittest import mock

from edge.benchmarking.engine_process import EngineProcess
from edge.cli import bench as cli
from edge.runtimes import EngineSettings
from tests.messages import World, case
from tests.messages.inspection import bundle

QUICK = ("--runs", "1", "--threads", "1", "--tokens", "2")


@case
def options_that_are_no_measurement(world: World) -> None:
    world.edge("bench", "nowhere")
    (world.path / "x.gguf").write_bytes(b"GGUF")
    world.edge("bench", "x.gguf", "--prompts", "32,many")
    world.edge("bench", "x.gguf", "--prompts", "0")
    world.edge("bench", "x.gguf", "--depths", "-1")
    world.edge("bench", "x.gguf", "--plot", "speed.png")
    world.edge("bench", "x.gguf", "--plot", "nowhere/speed.svg")


@case
def lengths_that_no_context_holds(world: World) -> None:
    file = next(bundle(world, "android").glob("*.gguf")).relative_to(world.path)
    short = (file, *QUICK, "--context", "256")
    world.edge("bench", *short, "--prompts", "257")
    world.edge("bench", *short, "--prompts", "8", "--depths", "0,300")
    world.edge("bench", file, *QUICK, "--context", "2")
    for disturbed in (2.0, -1.0):  # never, always
        with mock.patch.object(cli, "_DISTURBED", disturbed):
            world.edge("bench", file, *QUICK, "--prompts", "2", "--context", "2", "--plot", "x.svg")


@case
def artifacts_that_do_not_load(world: World) -> None:
    (world.path / "x.gguf").write_bytes(b"GGUF")
    world.edge("bench", "x.gguf", *QUICK)
    folder = world.path / "x"
    folder.mkdir()
    for config in ({"model": {}}, {"model": {"decoder": {"filename": "model.onnx"}}}):
        (folder / "genai_config.json").write_text(json.dumps(config))
        world.edge("bench", "x", *QUICK)


@case
def too_little_memory(world: World) -> None:
    (world.path / "x.gguf").write_bytes(b"GGUF" + bytes(1 << 20))
    with mock.patch("edge.machine.memory", return_value=(1 << 30, 1 << 10)):
        world.edge("bench", "x.gguf", "--vs", "x.gguf", *QUICK)


@case
def engines_that_end(world: World) -> None:
    def open_one() -> None:
        EngineProcess(Path("x.gguf"), context_length=None, settings=EngineSettings(), seed=0)

    for line in (
        "echo error: llama.cpp gave up >&2; exit 2",
        "kill -9 $$",
        'read x; echo \'{"machine": "full"}\'',
    ):
        (world.path / "engine").write_text(f"#!/bin/sh\n{line}\n")
        (world.path / "engine").chmod(0o755)
        with mock.patch.object(sys, "executable", str(world.path / "engine")):
            world.call(open_one)

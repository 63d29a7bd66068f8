"""Models that take images and recordings: what targets, options, files and damaged folders are refused with."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

from benchmarks.tiny_multimodal import Layout, write_multimodal
from edge.chat import commands
from edge.chat.session import Session, Settings
from edge.engine_settings import EngineSettings
from edge.runtimes import open_runtime
from edge.runtimes.isolated_encoder import features
from edge.runtimes.multimodal.sessions import Decoder, encode, open_encoder
from tests.attacks.media import half, picture, recording
from tests.messages import World, case
from tests.messages.inspection import bundle as text_bundle


def checkpoint(world: World, layout: Layout = "phi4_multimodal") -> Path:
    """./checkpoint, of a small vocabulary."""
    directory = world.path / "checkpoint"
    write_multimodal(directory, layout, vocab_size=640 if layout == "phi4_multimodal" else None)
    return directory


def bundle(world: World, layout: Layout = "phi4_multimodal") -> Path:
    """./b, unproven, its variant's folder; and beside it a picture and a recording."""
    checkpoint(world, layout)
    world.quietly("convert", "checkpoint", "-t", "cpu", "-o", "b", "--no-proof", "--context", "512")
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(world.path / "a.png")
    soundfile.write(world.path / "a.wav", np.zeros(8000), 16000)
    return world.path / "b" / "multimodal-int4"


@case
def conversions_that_are_of_text_alone(world: World) -> None:
    checkpoint(world)
    world.edge("convert", "checkpoint", "-t", "android-npu", "--dry-run")
    world.edge("convert", "checkpoint", "-t", "cpu", "--bits-per-weight", "4.5", "--dry-run")
    world.edge("convert", "checkpoint", "-t", "cpu", "--adapter", "somewhere", "--dry-run")


@case
def more_crops_than_any_model_has(world: World) -> None:
    directory = checkpoint(world, "phi3_v")
    for crops in (0, "4", 10_000):
        (directory / "preprocessor_config.json").write_text(json.dumps({"num_crops": crops}))
        world.edge("convert", "checkpoint", "-t", "cpu", "-o", "b", "--no-proof")


@case
def an_image_for_a_model_of_text(world: World) -> None:
    text_bundle(world, "cpu")
    world.edge("chat", "hello", "-m", "b", "--image", "a.png")


@case
def a_recording_for_a_model_that_only_sees(world: World) -> None:
    bundle(world, "phi3_v")
    world.edge("chat", "hello", "-m", "b", "--audio", "a.wav")


@case
def files_that_cannot_be_shown(world: World) -> None:
    bundle(world)
    (world.path / "half.png").write_bytes(half(picture("PNG")))
    (world.path / "half.wav").write_bytes(half(recording("WAV")))
    world.edge("chat", "hello", "-m", "b", "--image", "nowhere.png")
    world.edge("chat", "hello", "-m", "b", "--image", "half.png")
    world.edge("chat", "hello", "-m", "b", "--image", "a.wav")
    world.edge("chat", "hello", "-m", "b", "--audio", "half.wav")
    world.edge("chat", "hello", "-m", "b", "--audio", "a.png")


@case
def more_images_than_the_context_holds(world: World) -> None:
    bundle(world)
    world.edge("chat", "hello", "-m", "b", *["--image", "a.png"] * 20)


@case
def options_that_are_of_text_alone(world: World) -> None:
    bundle(world)
    world.edge("chat", "hello", "-m", "b", "--prompt-lookup", "4")
    world.edge("chat", "hello", "-m", "b", "--adapter", "vision")


@case
def commands_without_a_file(world: World) -> None:
    runtime = open_runtime(bundle(world))
    try:
        session = Session(runtime, settings=Settings(seed=1))
        for line in ("/image", "/audio", "/image nowhere.png"):
            world.heading(line)
            world.call(commands.run, session, line)
    finally:
        runtime.close()


@case
def a_damaged_folder(world: World) -> None:
    directory = bundle(world)
    (directory / "vision.onnx").write_bytes(b"\x08")
    world.edge("chat", "hello", "-m", "b", "--image", "a.png")
    (directory / "media.json").write_text('{"kind": "phi4mm", "image_token": 638, "audio_token": 639}')
    world.edge("chat", "hello", "-m", "b")


@case
def arrays_that_a_graph_refuses(world: World) -> None:
    """What only a graph of another model does, in place of the one that was written."""
    directory = bundle(world)
    settings = EngineSettings(threads=1)
    decoder = Decoder(directory / "model.onnx", 16, settings)
    world.call(decoder.run, np.zeros((1, 2, 3), np.float32), 0)
    encoder = open_encoder(directory, "image", settings)
    world.call(encode, encoder, "image", {"image_sizes": np.zeros((1, 2), np.int64)}, beside_image=False)
    world.call(features, directory, "image", {"image_sizes": np.zeros((1, 2), np.int64)})

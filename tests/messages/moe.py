"""Models with experts: what no format or measurement can hold, and checkpoints that are not whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from converters import gguf
from converters.checkpoint import Checkpoint
from converters.decoder import Decoder, Lora
from converters.models import describe
from quant.backward import Observer, backward
from quant.calibrate import Calibration
from quant.codes import CodeStore
from quant.recipe import Recipe
from tests.messages import World, add, case

ABSENT = object()
DRY = ("--target", "cpu", "--dry-run")


@case
def targets_without_experts(world: World) -> None:
    model = world.tiny("phi3.5-moe")
    for target in ("android-npu", "windows"):
        world.edge("convert", model, "--target", target, "--dry-run")


@case
def choices_by_gradient_or_calibration(world: World) -> None:
    model = world.tiny("phi3.5-moe")
    world.edge("convert", model, *DRY, "--calibrate")
    world.edge("convert", model, *DRY, "--bits-per-weight", "5")
    with Checkpoint.open(world.path / model) as checkpoint:
        decoder = describe(checkpoint)
        windows = np.array([[1, 2, 3]])
        world.call(backward, checkpoint, decoder, windows, Observer())
        codes = CodeStore(world.path / "codes")
        world.call(Calibration, checkpoint, decoder, windows, lambda _: None, codes)


@case
def experts_of_two_widths(world: World) -> None:
    rules = [
        {"pattern": "*.moe.*.down", "storage": "int8", "method": "rtn"},
        {"pattern": "*", "storage": "int4", "method": "rtn"},
    ]
    (world.path / "mixed.json").write_text(json.dumps({"name": "mixed", "rules": rules}))
    world.edge("convert", world.tiny("phi3.5-moe"), *DRY, "--recipe", "mixed.json")


@case
def what_both_targets_become(world: World) -> None:
    model = world.tiny("phi3.5-moe")
    world.edge("convert", model, "--target", "cpu", "--target", "android", "--dry-run")


def _gguf(change: Callable[[Decoder], Decoder]) -> Callable[[World], None]:
    def run(world: World) -> None:
        with Checkpoint.open(world.path / world.tiny("phi3.5-moe")) as checkpoint:
            decoder = describe(checkpoint)
        world.call(gguf.check, change(decoder), Recipe.preset("int4"))

    return run


for name, change in {
    "turns part of a head": lambda d: replace(d, rope=replace(d.rope, dim=16)),
    "is tied": lambda d: replace(d, lm_head=d.embedding),
    "has an adapter": lambda d: replace(d, adapters=(Lora("law", ()),)),
}.items():
    add(f"moe/gguf {name}", _gguf(change))


def _damaged(change: Callable[[dict[str, Any], dict[str, np.ndarray]], None]) -> Callable[[World], None]:
    """A checkpoint whose config or tensors `change` altered."""

    def run(world: World) -> None:
        directory = world.copy("moe-8", dtype="f32")
        config = json.loads((directory / "config.json").read_text())
        tensors = load_file(directory / "model.safetensors")
        change(config, tensors)
        config = {key: value for key, value in config.items() if value is not ABSENT}
        (directory / "config.json").write_text(json.dumps(config))
        save_file(tensors, directory / "model.safetensors")
        world.edge("convert", "checkpoint", *DRY)

    return run


_MOE = "model.layers.1.block_sparse_moe"


def _router(config: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
    tensors[f"{_MOE}.gate.weight"] = tensors[f"{_MOE}.gate.weight"][:, :-32]


def _one_scale(config: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
    factors = [1.0] * 12
    config["rope_scaling"] = {
        "type": "longrope",
        "short_factor": factors,
        "long_factor": factors,
        "short_mscale": 1.0,
    }


for name, damage in {
    "expert missing": lambda config, tensors: tensors.pop(f"{_MOE}.experts.5.w2.weight"),
    "router of another width": _router,
    "fewer experts than tensors": lambda config, tensors: config.update(num_local_experts=7),
    "a single expert": lambda config, tensors: config.update(num_local_experts=1),
    "one expert a token": lambda config, tensors: config.update(num_experts_per_tok=1),
    "key not understood": lambda config, tensors: config.update(num_shared_experts=1),
    "bias that config json denies": lambda config, tensors: config.update(lm_head_bias=False),
    "scale missing": _one_scale,
    "class": lambda config, tensors: config.update(architectures=["PhiMoEForSequenceClassification"]),
}.items():
    add(f"moe/{name}", _damaged(damage))


@case
def shard_missing(world: World) -> None:
    directory = world.copy("moe-8", shards=4)
    (directory / "model-00003-of-00004.safetensors").unlink()
    world.edge("convert", "checkpoint", *DRY)

"""Checkpoints that are damaged, hostile, or not what config.json says."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from converters.checkpoint import Checkpoint
from converters.decoder import Rows, Weight
from converters.strict_config import StrictConfig
from tests.attacks.checkpoints import ATTACKS
from tests.messages import World, add, case

ABSENT = object()


@case
def attacks(world: World) -> None:
    for number, attack in enumerate(ATTACKS):
        if attack.name == "name too long":
            continue  # its message is cut at a length that counts this machine's path
        directory = world.path / str(number)
        directory.mkdir()
        world.heading(attack.name)
        world.call(Checkpoint.open, attack.make(directory) or directory)


def _config(changes: dict[str, Any]) -> Callable[[World], None]:
    def run(world: World) -> None:
        file = world.copy("phi3-mini-4k") / "config.json"
        config = json.loads(file.read_text()) | changes
        file.write_text(json.dumps({k: v for k, v in config.items() if v is not ABSENT}))
        world.edge("convert", "checkpoint", "--target", "cpu", "--dry-run")

    return run


_LONG = {"type": "longrope", "short_factor": [1.0] * 16, "long_factor": [2.0] * 16}
for name, changes in {
    "model type missing": {"model_type": ABSENT},
    "model type unknown": {"model_type": "llama"},
    "architecture": {"architectures": ["Phi3ForSequenceClassification"]},
    "unknown key": {"logit_softcap": 30.0},
    "key that changes the maths": {"attention_bias": True},
    "key missing": {"hidden_size": ABSENT},
    "key of another kind": {"hidden_size": "128"},
    "heads do not divide": {"num_attention_heads": 3, "num_key_value_heads": 2},
    "tensor shape": {"vocab_size": 641},
    "tensor missing": {"num_hidden_layers": 4},
    "tensor without a place": {"num_hidden_layers": 1},
    "rope is a list": {"rope_scaling": [1]},
    "rope type": {"rope_scaling": {"type": "linear", "factor": 2.0}},
    "rope factors": {"rope_scaling": {**_LONG, "long_factor": [1.0, 2.0]}},
    "rope said twice": {"rope_theta": 1e4, "rope_parameters": {"rope_type": "default", "rope_theta": 2e4}},
    "rope objects contradict": {
        "rope_parameters": {"rope_type": "default"},
        "rope_scaling": {"type": "linear"},
    },
    "rope context contradicts": {"rope_scaling": {**_LONG, "original_max_position_embeddings": 77}},
    "rope factor list missing": {"rope_scaling": {"type": "longrope"}},
    "rope factor negative": {"rope_scaling": {**_LONG, "long_factor": [-1.0] * 16}},
    "number": {"rms_norm_eps": -1},
    "flag": {"tie_word_embeddings": "yes"},
    "token id": {"eos_token_id": 10**6},
    "two token ids": {"bos_token_id": [1, 2]},
    "partial rotary": {"partial_rotary_factor": 0.03},
}.items():
    add(f"checkpoints/config {name}", _config(changes))


def _weights(world: World, change: Callable[[dict[str, np.ndarray]], None], *more: str) -> None:
    file = world.copy("phi3-mini-4k", dtype="f32") / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)
    world.edge("convert", "checkpoint", "--target", "cpu", "--no-proof", "-o", "b", "--threads", "1", *more)


@case
def weight_is_not_finite(world: World) -> None:
    def change(tensors: dict[str, np.ndarray]) -> None:
        tensors["model.layers.0.mlp.down_proj.weight"][3, 5] = np.nan

    _weights(world, change)


@case
def weight_is_too_large(world: World) -> None:
    def change(tensors: dict[str, np.ndarray]) -> None:
        tensors["model.layers.0.mlp.down_proj.weight"][3, 5] = 1e30

    _weights(world, change, "--precision", "f16")


@case
def no_stop_token(world: World) -> None:
    directory = world.copy("phi4")
    (directory / "generation_config.json").unlink(missing_ok=True)
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"eos_token_id": None}))
    world.edge("convert", "checkpoint", "--target", "cpu", "-o", "b")
    world.edge("convert", "checkpoint", "--target", "android", "-o", "b")


@case
def tokenizer_is_missing(world: World) -> None:
    directory = world.copy("phi4")
    (directory / "tokenizer_config.json").unlink()
    world.edge("convert", "checkpoint", "--target", "cpu", "-o", "b")
    (directory / "tokenizer.json").unlink()
    world.edge("convert", "checkpoint", "--target", "cpu", "-o", "b")


@case
def tokenizer_is_too_large(world: World) -> None:
    with (world.copy("phi4") / "tokenizer.json").open("r+b") as file:
        file.truncate(1 << 40)
    world.edge("convert", "checkpoint", "--target", "cpu", "-o", "b")


@case
def weight_parts_do_not_fit(world: World) -> None:
    with Checkpoint.open(world.path / world.tiny("phi4")) as checkpoint:
        part = Rows("model.embed_tokens.weight", 0, 5)
        world.call(
            checkpoint.weight_dtype,
            Weight("embedding", (6, checkpoint.tensors[part.tensor].shape[1]), (part,)),
        )
        world.call(checkpoint.weight_dtype, Weight("embedding", (5, 3), (part,)))
        world.call(checkpoint.read, "nowhere")


@case
def weight_parts_mix_dtypes(world: World) -> None:
    file = world.copy("phi4", dtype="f32") / "model.safetensors"
    tensors = load_file(file)
    first, second = sorted(n for n in tensors if n.endswith("layernorm.weight"))[:2]
    tensors[second] = tensors[second].astype(np.float16)
    save_file(tensors, file)
    with Checkpoint.open(file.parent) as checkpoint:
        parts = tuple(Rows(n, 0, checkpoint.tensors[n].shape[0]) for n in (first, second))
        rows = sum(p.stop for p in parts)
        world.call(checkpoint.weight_dtype, Weight("norms", (rows,), parts))


@case
def number_that_has_no_default(world: World) -> None:
    world.call(StrictConfig({}, "rope_scaling.").number, "factor")


@case
def file_shrinks_while_it_is_read(world: World) -> None:
    directory = world.copy("phi4")
    with Checkpoint.open(directory) as checkpoint:
        with (directory / "model.safetensors").open("r+b") as file:
            file.truncate(checkpoint.tensors["model.norm.weight"].offset)
        world.call(checkpoint.read, "model.norm.weight")

"""LoRA adapters: what is refused when one is read, and when one is used."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from converters.errors import UnsupportedError
from edge.chat.session import Session
from edge.runtimes import open_runtime
from tests.messages import World, case

HIDDEN, QKV = 192, 320
"""Of the tiny phi4-mini: width, and rows of qkv_proj."""
MODULE = "base_model.model.model.layers.0.self_attn.qkv_proj"
SOUND = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["qkv_proj"]}


def adapter(
    world: World,
    name: str = "a",
    tensors: dict[str, tuple[int, ...]] | None = None,
    *,
    qkv: int = QKV,
    **config: Any,
) -> Path:
    """An adapter as PEFT saves it, of one layer unless `tensors` says otherwise; config keys may be altered."""
    directory = world.path / name
    directory.mkdir()
    (directory / "adapter_config.json").write_text(json.dumps(SOUND | config))
    if tensors is None:
        tensors = {f"{MODULE}.lora_A.weight": (2, HIDDEN), f"{MODULE}.lora_B.weight": (qkv, 2)}
    random = np.random.default_rng(0)
    arrays = {k: random.standard_normal(shape, dtype=np.float32) for k, shape in tensors.items()}
    save_file(arrays, directory / "adapter_model.safetensors")
    return directory


def convert(world: World, *words: str | Path) -> int:
    return world.edge("convert", world.tiny("phi4-mini"), "-t", "cpu", "--dry-run", *words)


@case
def an_adapter_that_is_no_directory_or_pickled(world: World) -> None:
    convert(world, "--adapter", "nowhere")
    directory = adapter(world)
    (directory / "adapter_model.safetensors").rename(directory / "adapter_model.bin")
    convert(world, "--adapter", "a")
    (directory / "adapter_model.bin").unlink()
    convert(world, "--adapter", "a")
    (directory / "adapter_model.safetensors").write_bytes(b"\xff" * 64)
    convert(world, "--adapter", "a")


@case
def names_of_adapters(world: World) -> None:
    adapter(world)
    convert(world, "--adapter", "../x=a")
    convert(world, "--adapter", "none=a")
    convert(world, "--adapter", "a", "--adapter", "a=a")


@case
def configs_that_are_more_than_low_rank(world: World) -> None:
    for key, value in (
        ("peft_type", "IA3"), ("use_dora", True), ("modules_to_save", ["lm_head"]), ("bias", "all"),
        ("init_lora_weights", "pissa"), ("rank_pattern", {".*proj": 2}), ("lora_alpha", "x"), ("r", 0),
    ):  # fmt: skip
        world.heading(key)
        adapter(world, key, **{key: value})
        convert(world, "--adapter", key)


@case
def tensors_that_do_not_fit(world: World) -> None:
    adapter(world, "other-base", qkv=512)
    adapter(world, "other-rank", r=3)
    for name, module in (("unknown-target", "model.layers.9.mlp.experts"), ("head", "lm_head")):
        halves = (f"base_model.model.{module}.lora_{half}.weight" for half in "AB")
        adapter(world, name, dict.fromkeys(halves, (2, 2)))
    adapter(world, "half", {f"{MODULE}.lora_A.weight": (2, HIDDEN)})
    adapter(world, "more", {f"{MODULE}.lora_magnitude_vector": (4,)})
    adapter(world, "empty", {})
    for name in ("other-base", "other-rank", "unknown-target", "head", "half", "more", "empty"):
        convert(world, "--adapter", name)


@case
def targets_that_switch_nothing(world: World) -> None:
    adapter(world)
    for target in ("windows", "android-npu"):
        world.edge("convert", world.tiny("phi4-mini"), "-t", target, "--dry-run", "--adapter", "a")


@case
def an_adapter_in_use(world: World) -> None:
    adapter(world)
    model = world.tiny("phi4-mini")
    world.edge(
        "convert", model, "-t", "cpu", "-t", "android", "--adapter", "shop=a", "-o", "b", "--context", "64"
    )
    world.edge("verify", "b", "--against", model)
    world.edge("chat", "-m", "b", "hello", "-n", "1", "--adapter", "b")
    for file in (world.path / "b").rglob("shop.*"):
        file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    world.edge("chat", "-m", "b", "hello", "-n", "1", "--adapter", "shop")
    # As files of their own, without a manifest: what the engines say.
    for file in (world.path / "b").rglob("shop.*"):
        file.write_bytes(b"no adapter")
    for variant in (world.path / "b" / "onnx-int4", next((world.path / "b").glob("*.gguf"))):
        runtime = open_runtime(variant)
        world.call(use, runtime, "shop")
        runtime.close()


def use(runtime: Any, name: str) -> None:
    """An engine's own words differ from version to version."""
    try:
        runtime.use_adapter(name)
    except UnsupportedError as error:
        error.cause = error.cause.split("cannot use it")[0] + "cannot use it"
        raise


@case
def an_engine_without_adapters(world: World) -> None:
    world.quietly(
        "convert", world.tiny("phi4-mini"), "-t", "windows", "-o", "w", "--no-proof", "--context", "64"
    )
    world.edge("chat", "-m", "w", "hello", "-n", "1", "--adapter", "a")
    runtime = open_runtime(world.path / "w" / "dml-int4")
    outside = SimpleNamespace(name="an engine from outside", dialect=runtime.dialect, encode=runtime.encode)
    world.call(Session(outside, use_template=False).use_adapter, "a")  # type: ignore[arg-type]
    runtime.close()

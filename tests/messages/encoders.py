"""Multimodal checkpoints whose encoders are not what their config says."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from benchmarks.tiny_multimodal import Layout, write_multimodal
from benchmarks.tiny_multimodal_shapes import CONFIGS
from converters.checkpoint import Checkpoint
from converters.models import describe, describe_whole
from converters.strict_config import StrictConfig
from converters.tensor_map import TensorMap
from tests.messages import World, add, case


def _refused(layout: Layout, change: Callable[[dict[str, Any]], object]) -> Callable[[World], None]:
    def run(world: World) -> None:
        write_multimodal(world.path / "checkpoint", layout)
        with Checkpoint.open(world.path / "checkpoint") as checkpoint:
            checkpoint.config = copy.deepcopy(CONFIGS[layout])
            change(checkpoint.config)
            world.call(describe_whole, checkpoint)

    return run


_REFUSALS: dict[str, tuple[Layout, Callable[[dict[str, Any]], object]]] = {
    "crops do not fit the positions": (
        "phi4mm",
        lambda config: config["embd_layer"]["image_embd_layer"].update(crop_size=448),
    ),
    "another order of crops": (
        "phi4mm",
        lambda config: config["embd_layer"]["image_embd_layer"].update(hd_transform_order="glb_sub"),
    ),
    "heads do not divide speech": (
        "phi4_multimodal",
        lambda config: config["audio_config"].update(num_attention_heads=3),
    ),
    "adapter without a rank": ("phi4mm", lambda config: config["vision_lora"].pop("r")),
    "no activation": ("phi4mm", lambda config: config["audio_processor"]["config"].pop("conv_glu_type")),
    "section is a word": ("phi3_v", lambda config: config.update(embd_layer="image")),
    "image channels": ("phi3_v", lambda config: config["img_processor"].update(image_dim_out=1024)),
}
for name, (layout, change) in _REFUSALS.items():
    add(f"encoders/{name}", _refused(layout, change))


@case
def more_than_text(world: World) -> None:
    write_multimodal(world.path / "checkpoint", "phi3_v")
    with Checkpoint.open(world.path / "checkpoint") as checkpoint:
        world.call(describe, checkpoint)


@case
def size_that_no_tensor_says(world: World) -> None:
    with Checkpoint.open(world.path / world.tiny("phi4")) as checkpoint:
        world.call(TensorMap(checkpoint).shape, "model.vision.weight", 4)
        world.call(TensorMap(checkpoint).shape, "model.norm.weight", 4)


@case
def key_that_must_be_there(world: World) -> None:
    world.call(StrictConfig({}, "audio_processor.").require, "name", "cascades")
    world.call(StrictConfig({"name": []}, "audio_processor.").section, "name")

"""Phi-3-small: configs that it cannot have, its vocabulary, and the targets that cannot take it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from unittest import mock

from converters.tiktoken import VOCABULARY, read_ranks, tokenizer_files
from tests.messages import World, add, case


def _config(changes: dict[str, Any]) -> Callable[[World], None]:
    def run(world: World) -> None:
        file = world.copy("phi3-small") / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))
        world.edge("convert", "checkpoint", "--target", "cpu", "--dry-run")

    return run


for name, changes in {
    "heads": {"num_attention_heads": 7},
    "kernel blocks": {"blocksparse_triton_kernel_block_size": 32},
    "block size": {"blocksparse_block_size": 48, "blocksparse_triton_kernel_block_size": 48},
    "stretched positions": {"rope_position_scale": 2.0},
    "vocabulary too small": {"vocab_size": 380},
}.items():
    add(f"small/config {name}", _config(changes))


@case
def no_vocabulary(world: World) -> None:
    (world.copy("phi3-small") / VOCABULARY).unlink()
    world.edge("convert", "checkpoint", "--target", "cpu", "--dry-run")


@case
def damaged_vocabulary(world: World) -> None:
    file = world.copy("phi3-small") / VOCABULARY
    lines = file.read_text().splitlines()
    for damage in ([*lines, "!!!! 400"], lines[1:], [*lines, f"AAECAw== {len(lines)}"]):
        file.write_text("\n".join(damage))
        world.edge("convert", "checkpoint", "--target", "cpu", "--dry-run")
    file.write_text("\n".join(lines))
    with mock.patch("converters.tiktoken.MAX_BYTES", 1 << 10):
        world.call(read_ranks, file)
    world.call(tokenizer_files, file, 380)


@case
def cache_elsewhere(world: World) -> None:
    """As where the cache lies on another file system: no hard link can be made."""
    world.copy("phi3-small")
    with mock.patch("os.link", side_effect=OSError(18, "Invalid cross-device link")):
        world.edge("convert", "checkpoint", "--target", "cpu", "--dry-run")


@case
def other_targets(world: World) -> None:
    # Its tokenizer is then in the cache, whatever ran before: no line whose coming depends on the order.
    world.quietly("convert", world.tiny("phi3-small"), "--target", "cpu", "--dry-run")
    checkpoint = world.tiny("phi3-small")
    for target in ("android", "android-npu", "windows"):
        world.edge("convert", checkpoint, "--target", target, "--dry-run")
    world.edge("convert", checkpoint, "--target", "cpu", "--calibrate", "--dry-run")

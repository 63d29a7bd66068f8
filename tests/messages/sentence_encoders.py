"""Checkpoints of sentence vectors whose modules a bundle would not compute, and bundles that are served for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.encoder_checkpoint import write_sentence_encoder
from tests.messages import World, case
from tests.messages.text_encoders import bundle


@case
def modules_that_cannot_be_kept(world: World) -> None:
    cases: dict[str, dict[str, Any]] = {
        "dense": {"modules": ("Transformer", "Pooling", "Dense", "Normalize")},
        "max": {"modes": ("max_tokens",)},
        "both": {"modes": ("cls_token", "mean_tokens")},
        "none": {"modes": ()},
        "lower": {"do_lower_case": True},
        "length": {"max_seq_length": "long"},
    }
    for name, options in cases.items():
        write_sentence_encoder(world.path / name, **options)
        world.edge("convert", name, "--target", "cpu", "--dry-run")


@case
def modules_that_are_damaged(world: World) -> None:
    directory = write_sentence_encoder(world.path / "bert")
    command = ("convert", "bert", "--target", "cpu", "--dry-run")
    (directory / "config_sentence_transformers.json").write_text(json.dumps({"default_prompt_name": "query"}))
    world.edge(*command)
    for text in ("{}", "[1]", "["):
        (directory / "modules.json").write_text(text)
        world.edge(*command)


@case
def bundles_that_cannot_be_served(world: World) -> None:
    served = ("serve", "bundle", "--port", "0")
    kinds: list[tuple[bool, dict[str, Any]]] = [
        (True, {}), (False, {}), (False, {"pooling": "mean", "normalized": True}),
    ]  # fmt: skip
    for labels, model in kinds:
        world.heading(f"labels {labels}, {model}")
        clear(world.path / "bundle")
        bundle(world, labels=labels, **model)
        world.edge(*served, "--variant", "int4")
    world.edge(*served, "--context", "64")
    world.edge("chat", "hi", "-m", "bundle")


def clear(directory: Path) -> None:
    for file in sorted(directory.rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()

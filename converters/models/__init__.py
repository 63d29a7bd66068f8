"""Architectures: one file each, named after the config's model_type. The directory is the registry.

A file `<model_type>.py` here has `describe(checkpoint: Checkpoint) -> Decoder | Multimodal`. A package can bring one
from outside with an entry point of that name in the group `edge.models` that leads to such a function.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from typing import cast

from converters.checkpoint import Checkpoint
from converters.decoder import Decoder
from converters.errors import CheckpointError, UnsupportedError
from converters.multimodal import Multimodal
from converters.strict_json import shown

GROUP = "edge.models"
ENCODERS = ("bert", "bert_moebert", "deberta-v2", "distilbert", "electra", "roberta", "xlm-roberta")
"""Model types that give labels or vectors and no text: `edge convert` exports them, and nothing else here runs them."""
Describe = Callable[[Checkpoint], Decoder | Multimodal]


def supported() -> list[str]:
    """The model types that `describe` knows, sorted."""
    outside = {entry.name for entry in entry_points(group=GROUP)}
    return sorted({module.name for module in pkgutil.iter_modules(__path__)} | outside)


def describe(checkpoint: Checkpoint) -> Decoder:
    """As `describe_whole`, of a model of text alone; UnsupportedError for one that takes images or speech too."""
    model = describe_whole(checkpoint)
    if isinstance(model, Multimodal):
        raise UnsupportedError(
            f"config.json: model_type {shown(checkpoint.config['model_type'])} takes images or speech, which "
            "cannot be done with it here",
            hint="choose a model of text alone",
        )
    return model


def describe_whole(checkpoint: Checkpoint) -> Decoder | Multimodal:
    """What the checkpoint computes, with a handle to every weight; reads headers and configs only.

    Raises CheckpointError when config and tensors do not fit, and UnsupportedError that names the config key
    or tensor that this project cannot convert rightly.
    """
    model_type = checkpoint.config.get("model_type")
    if not isinstance(model_type, str):
        raise CheckpointError(
            "config.json: model_type is missing", hint="give a checkpoint in Hugging Face layout"
        )
    return _architecture(model_type)(checkpoint)


def _architecture(model_type: str) -> Describe:
    # Membership before import: the name comes from a file and must not reach the import system unchecked.
    if model_type in {module.name for module in pkgutil.iter_modules(__path__)}:
        return cast(Describe, import_module(f"{__name__}.{model_type}").describe)
    for entry in entry_points(group=GROUP, name=model_type):
        return cast(Describe, entry.load())
    if model_type in ENCODERS:
        raise UnsupportedError(
            f"config.json: model_type {shown(model_type)} is an encoder, which writes no text",
            hint="edge convert CHECKPOINT --target cpu exports it; edge classify runs the bundle",
        )
    raise UnsupportedError(
        f"config.json: model_type {shown(model_type)} is not supported (known: {', '.join(supported())})",
        hint="convert a model of a known type, or add a file to converters/models (CONTRIBUTING.md)",
    )

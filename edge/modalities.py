"""What a target makes of a model that takes more than text."""

from __future__ import annotations

from converters.decoder import Decoder
from converters.errors import UnsupportedError
from converters.multimodal import Multimodal
from converters.rooms import MULTIMODAL
from edge.targets import Target
from quant.recipe import Recipe


def format_of(target: Target, model: Decoder | Multimodal) -> str:
    """The format that the target takes this model in. UnsupportedError when there is none."""
    if not isinstance(model, Multimodal) or target.format == "gguf":
        return target.format
    if target.format != "onnx":
        raise UnsupportedError(
            f"target '{target.name}' takes text alone, this model {' and '.join(model.senses)} too",
            hint="--target cpu takes all of it, --target android its text",
        )
    return MULTIMODAL


def recipe_of(recipe: Recipe, model: Decoder | Multimodal) -> Recipe:
    """`recipe`, where it is a target's own and not a person's, with what suits encoders."""
    if not isinstance(model, Multimodal):
        return recipe
    parts = (("vision", model.vision), ("speech", model.speech))
    return recipe.with_encoders([kind for kind, part in parts if part])


def notes_of(name: str, format_name: str, model: Decoder | Multimodal) -> list[str]:
    """What a variant leaves out."""
    if not isinstance(model, Multimodal) or format_name == MULTIMODAL:
        return []
    adapters = " and ".join(lora.name for lora in model.decoder.adapters)
    beside = f", with its adapters {adapters} as files" if adapters else ""
    return [f"{name}: text alone{beside}: llama.cpp has no encoder of this model"]

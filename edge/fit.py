"""What a model takes of a device's memory, from its description and recipe alone: no weight is read."""

from __future__ import annotations

from converters.decoder import Decoder
from converters.multimodal import Multimodal, text_of
from converters.writer import Storages
from edge.engine_settings import EngineSettings
from edge.fitting import dml, genai, llamacpp, multimodal, qnn
from edge.fitting.llamacpp import Cpu
from edge.fitting.memory import Memory

__all__ = ["Cpu", "Memory", "device_memory", "largest_context"]


def device_memory(
    format_name: str,
    model: Decoder | Multimodal,
    recipe: Storages,
    context_length: int,
    *,
    filled: int | None = None,
    cpu: Cpu = "x86-64",
    settings: EngineSettings | None = None,
) -> Memory:
    """Peak memory of the engine of `format_name` with a cache for `context_length` tokens.

    filled: how many of them are really used (default: all). cpu: what kind of processor runs it; the default is
    what the formulas were measured on. settings: how the engine is set up, as by a target's profile.
    """
    settings = settings or EngineSettings()
    decoder = text_of(model)
    filled = min(filled or context_length, context_length)
    if format_name == "npu":
        return qnn.memory(decoder, recipe, context_length)
    if format_name == "dml":
        return dml.memory(decoder, recipe, context_length, filled=filled)
    if format_name == "multimodal" and isinstance(model, Multimodal):
        return multimodal.memory(model, recipe, context_length, filled=filled, settings=settings)
    if format_name == "onnx":
        return genai.memory(decoder, recipe, context_length, filled=filled, settings=settings)
    return llamacpp.memory(decoder, recipe, context_length, filled=filled, cpu=cpu, settings=settings)


def largest_context(
    format_name: str,
    model: Decoder | Multimodal,
    recipe: Storages,
    limit: int,
    usable: int,
    *,
    cpu: Cpu = "x86-64",
    settings: EngineSettings | None = None,
) -> int:
    """The longest context up to `limit` whose peak memory is within `usable` bytes; 0 when none is."""
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        memory = device_memory(format_name, model, recipe, middle, cpu=cpu, settings=settings)
        if memory.total <= usable:
            low = middle
        else:
            high = middle - 1
    return low

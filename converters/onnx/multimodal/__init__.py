"""ONNX variants of models that take images and speech: encoders, and one base with a decoder for each modality."""

from __future__ import annotations

from collections.abc import Mapping

from converters.multimodal import Multimodal
from converters.onnx import limits
from converters.onnx.limits import BLOCK_FORMATS
from converters.onnx.multimodal.layout import plan_files
from converters.onnx.multimodal.stored import open_stored
from converters.onnx.multimodal.writer import open_writer, small_files
from converters.writer import Storages

__all__ = [
    "BLOCK_FORMATS",
    "check",
    "context_limit",
    "open_stored",
    "open_writer",
    "planned_bytes",
    "planned_files",
]


def check(model: Multimodal, recipe: Storages) -> None:
    """As `converters.onnx.limits.check`, of the decoder."""
    limits.check(model.decoder, recipe)


def context_limit(model: Multimodal) -> tuple[int, str | None]:
    """As `converters.onnx.limits.context_limit`, of the decoder."""
    return limits.context_limit(model.decoder)


def planned_bytes(model: Multimodal, recipe: Storages, *, context_length: int) -> int:
    """Bytes of all data files."""
    return plan_files(model, recipe, context_length).nbytes


def planned_files(model: Multimodal, recipe: Storages, context_length: int) -> Mapping[str, int]:
    """Bytes by file name, without the tokenizer's."""
    files = plan_files(model, recipe, context_length)
    small = {name: len(data) for name, data in small_files(model, files, context_length).items()}
    return {layout.file: layout.nbytes for layout in files.layouts} | small

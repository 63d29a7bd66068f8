"""ONNX graphs for Windows GPUs through DirectML: float16 between int4 or int8 weights, positions as an input."""

from __future__ import annotations

from collections.abc import Mapping

from converters.decoder import Decoder
from converters.onnx.dml.layout import plan
from converters.onnx.dml.limits import BLOCK_FORMATS, check, context_limit
from converters.onnx.dml.stored import open_stored
from converters.onnx.dml.writer import open_writer, small_files
from converters.onnx.layout import DATA_FILE
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


def planned_bytes(decoder: Decoder, recipe: Storages, *, context_length: int) -> int:
    """Bytes of `model.onnx.data`."""
    return plan(decoder, recipe, context_length).nbytes


def planned_files(decoder: Decoder, recipe: Storages, context_length: int) -> Mapping[str, int]:
    """Bytes by file name, without the tokenizer's."""
    layout = plan(decoder, recipe, context_length)
    files = small_files(decoder, layout, context_length)
    return {DATA_FILE: layout.nbytes} | {name: len(content) for name, content in files.items()}

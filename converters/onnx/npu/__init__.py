"""ONNX pipelines for Qualcomm's NPU: everything static, fp16 between int4 or int8 weights.

onnxruntime-genai runs the folder as a `decoder-pipeline`; what the NPU takes is compiled when it is loaded, or
beforehand into a context binary for one SoC (`edge.npu`).
"""

from __future__ import annotations

from collections.abc import Mapping

from converters.decoder import Decoder
from converters.onnx.npu.layout import plan
from converters.onnx.npu.limits import BLOCK_FORMATS, cache_length, check, context_limit
from converters.onnx.npu.stored import open_stored
from converters.onnx.npu.writer import open_writer, small_files
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
    """Bytes of both data files."""
    return plan(decoder, recipe, cache_length(context_length)).nbytes


def planned_files(decoder: Decoder, recipe: Storages, context_length: int) -> Mapping[str, int]:
    """Bytes by file name, without the tokenizer's."""
    files = plan(decoder, recipe, cache_length(context_length))
    sizes = {layout.file: layout.nbytes for layout in (files.head, files.layers)}
    return sizes | {n: len(c) for n, c in small_files(decoder, recipe, files, context_length).items()}

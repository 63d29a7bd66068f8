"""ONNX variants for onnxruntime and onnxruntime-genai on the CPU; for other devices see the rooms below."""

from __future__ import annotations

import json
from collections.abc import Mapping

from converters.decoder import Decoder
from converters.onnx.decoder_graph import build
from converters.onnx.genai_config import CONFIG_FILE, GRAPH_FILE, genai_config
from converters.onnx.layout import DATA_FILE, plan
from converters.onnx.limits import BLOCK_FORMATS, check, context_limit
from converters.onnx.stored import open_stored
from converters.onnx.writer import OnnxWriter, open_writer
from converters.writer import Storages

__all__ = [
    "BLOCK_FORMATS",
    "OnnxWriter",
    "check",
    "context_limit",
    "open_stored",
    "open_writer",
    "planned_bytes",
    "planned_files",
]


def planned_bytes(decoder: Decoder, recipe: Storages, *, context_length: int | None = None) -> int:
    """Bytes of `model.onnx.data`, rotary tables for `context_length` (default: the longest) included."""
    return plan(decoder, recipe, context_length or context_limit(decoder)[0]).nbytes


def planned_files(decoder: Decoder, recipe: Storages, context_length: int) -> Mapping[str, int]:
    """Bytes by file name, without the tokenizer's."""
    layout = plan(decoder, recipe, context_length)
    config = json.dumps(genai_config(decoder, context_length), indent=2) + "\n"
    return {
        DATA_FILE: layout.nbytes,
        GRAPH_FILE: build(decoder, layout, context_length).ByteSize(),
        CONFIG_FILE: len(config.encode()),
    }

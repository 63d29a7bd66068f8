"""ONNX variants for onnxruntime and onnxruntime-genai on the CPU."""

from __future__ import annotations

from converters.decoder import Decoder
from converters.onnx.layout import plan
from converters.onnx.limits import check, context_limit
from converters.onnx.writer import OnnxWriter, open_writer
from converters.writer import Storages

__all__ = ["OnnxWriter", "check", "context_limit", "open_writer", "planned_bytes"]


def planned_bytes(decoder: Decoder, recipe: Storages, *, context_length: int | None = None) -> int:
    """Bytes of `model.onnx.data`, rotary tables for `context_length` (default: the longest) included."""
    return plan(decoder, recipe, context_length or context_limit(decoder)[0]).nbytes

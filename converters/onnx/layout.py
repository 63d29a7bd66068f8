"""The plan of `model.onnx.data`: every offset is known before the first byte is written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from converters.decoder import Decoder
from converters.onnx.rotary import cache_tensors
from converters.onnx.tensors import Stored, Tensor, stored_weights
from converters.writer import Storages

DATA_FILE = "model.onnx.data"
ALIGNMENT = 4096
"""A page, so that onnxruntime maps every tensor without a copy (ONNX, docs/ExternalData.md)."""


@dataclass(frozen=True)
class Layout:
    """A data file. `offsets`: first byte of each tensor by name. `nbytes`: size of the file."""

    file: str
    stored: tuple[Stored, ...]
    tensors: Mapping[str, Tensor]
    offsets: Mapping[str, int]
    nbytes: int


def plan(decoder: Decoder, recipe: Storages, context_length: int) -> Layout:
    """The rotary caches and then the weights in forward order."""
    return lay_out(DATA_FILE, stored_weights(decoder, recipe), cache_tensors(decoder.rope, context_length))


def lay_out(file: str, stored: tuple[Stored, ...], tables: Iterable[Tensor] = ()) -> Layout:
    """`tables` and then what is stored, each at the next page."""
    tensors = [*tables, *(t for s in stored for t in s.tensors)]
    offsets: dict[str, int] = {}
    end = 0
    for tensor in tensors:
        if tensor.name in offsets:
            raise ValueError(f"two tensors are called {tensor.name}")
        offsets[tensor.name] = -(-end // ALIGNMENT) * ALIGNMENT
        end = offsets[tensor.name] + tensor.nbytes
    return Layout(file, stored, {tensor.name: tensor for tensor in tensors}, offsets, end)

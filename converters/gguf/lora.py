"""Adapters of the GGUF room: llama.cpp's own adapter files, in a folder beside the model's file.

llama.cpp multiplies an update by alpha / rank (src/llama-adapter.h, `get_scale`), or by nothing where alpha is 0. The
scale is within `b` here and alpha 0, because layers of one tensor may have ranks of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from gguf import GGUFWriter

from converters.adapter_files import adapter_file
from converters.checkpoint import Checkpoint
from converters.decoder import Decoder, Lora
from converters.gguf.layout import architecture, tensors
from converters.gguf.reader import Gguf
from converters.lora import Stack, rank, read_stack
from converters.writer import Storages


def write_adapters(checkpoint: Checkpoint, decoder: Decoder, recipe: Storages, variant: Path) -> None:
    """A file for each adapter of the decoder, beside the file `variant`. A layer's update is in memory at a time."""
    for lora in decoder.adapters:
        path = adapter_file(variant, lora.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        out = GGUFWriter(None, architecture(decoder))
        out.add_type("adapter")
        out.add_name(lora.name)
        out.add_string("adapter.type", "lora")
        out.add_float32("adapter.lora.alpha", 0.0)
        changed = list(_changed(decoder, recipe, lora))
        for stack in changed:
            for half, shape in _shapes(lora, stack):
                out.add_tensor_info(
                    f"{stack.name}.{half}", shape, np.dtype(np.float32), 4 * shape[0] * shape[1]
                )
        out.write_header_to_file(path)
        out.write_kv_data_to_file()
        out.write_ti_data_to_file()
        for stack in changed:
            for values in read_stack(checkpoint, lora, stack):
                out.write_tensor_data(np.ascontiguousarray(values))
        out.close()


def adapter_faults(checkpoint: Checkpoint, decoder: Decoder, recipe: Storages, variant: Path) -> list[str]:
    """What differs from the adapters of the decoder, one line each. CheckpointError for a damaged file."""
    faults = []
    for lora in decoder.adapters:
        file = Gguf.open(adapter_file(variant, lora.name))
        for stack in _changed(decoder, recipe, lora):
            for (half, _), values in zip(
                _shapes(lora, stack), read_stack(checkpoint, lora, stack), strict=True
            ):
                name = f"{stack.name}.{half}"
                if name not in file.tensors or not np.array_equal(file.read(name), values):
                    faults.append(f"adapter {lora.name}: {name} is not what the adapter says")
    return faults


def adapter_bytes(decoder: Decoder, recipe: Storages) -> int:
    """Of all adapters' files, their headers left out."""
    shapes = (
        shape
        for lora in decoder.adapters
        for stack in _changed(decoder, recipe, lora)
        for _, shape in _shapes(lora, stack)
    )
    return 4 * sum(rows * columns for rows, columns in shapes)


def _changed(decoder: Decoder, recipe: Storages, lora: Lora) -> Iterator[Stack]:
    """The tensors of the model's file that the adapter changes."""
    for tensor in tensors(decoder, recipe.storage):
        stack = Stack(tensor.name, tensor.weights)
        if tensor.weights and rank(lora, stack):
            yield stack


def _shapes(lora: Lora, stack: Stack) -> list[tuple[str, tuple[int, int]]]:
    return [("lora_a", (rank(lora, stack), stack.columns)), ("lora_b", (stack.rows, rank(lora, stack)))]

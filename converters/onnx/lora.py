"""Adapters of the ONNX room: a graph that takes one at run time, and `adapters/NAME.onnx_adapter` beside it.

Every linear layer that some adapter changes gets two more inputs, NAME.lora_a [columns, rank] and NAME.lora_b
[rank, rows] with rows = outputs, whose defaults have the rank 0: no adapter, no change. onnxruntime feeds them from
an adapter's file (RunOptions.add_active_adapter; onnxruntime-genai's set_active_adapter), so that adapters of any
rank share one graph and one set of weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from onnx import TensorProto, ValueInfoProto, helper

from converters.adapter_files import adapter_file
from converters.checkpoint import Checkpoint
from converters.decoder import Decoder, Lora
from converters.forward import Floats
from converters.lora import Stack, changed, rank, read_stack
from converters.onnx.graph import Graph
from converters.writer import Storages


def add_updates(graph: Graph, stack: Stack, x: str, outputs: list[str]) -> list[str]:
    """The stack's `outputs` (one for each weight, or one for all) for the input `x`, each with its update added."""
    down, up = f"{stack.name}.lora_a", f"{stack.name}.lora_b"
    graph.constant(down, np.zeros((stack.columns, 0), np.float32))
    graph.constant(up, np.zeros((0, stack.rows), np.float32))
    inner = graph.node("MatMul", [x, down], f"{stack.name}.lora_inner")
    update = graph.node("MatMul", [inner, up], f"{stack.name}.lora")
    updates = [update]
    if len(outputs) > 1:
        sizes = graph.constant(f"{stack.name}.lora_rows", [weight.rows for weight in stack.weights])
        updates = [f"{weight.name}.lora" for weight in stack.weights]
        graph.node("Split", [update, sizes], updates, axis=-1)
    pairs = zip(outputs, updates, strict=True)
    return [graph.node("Add", [output, change], f"{output}.adapted") for output, change in pairs]


def adapter_inputs(decoder: Decoder) -> list[ValueInfoProto]:
    """The graph inputs that an adapter feeds."""
    infos = []
    for stack in changed(decoder):
        shapes: list[tuple[str, list[str | int]]] = [
            (f"{stack.name}.lora_a", [stack.columns, f"{stack.name}.rank"]),
            (f"{stack.name}.lora_b", [f"{stack.name}.rank", stack.rows]),
        ]
        infos += [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes]
    return infos


def write_adapters(checkpoint: Checkpoint, decoder: Decoder, recipe: Storages, variant: Path) -> None:
    """A file for each adapter of the decoder, in the folder `variant`. An adapter is in memory whole meanwhile."""
    from onnxruntime import AdapterFormat, OrtValue

    del recipe  # graph inputs do not depend on how the matrices are stored
    for lora in decoder.adapters:
        path = adapter_file(variant, lora.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        file = AdapterFormat()
        file.set_adapter_version(1)
        file.set_model_version(1)
        # An OrtValue refers to its array without holding it.
        halves = list(_halves(checkpoint, decoder, lora))
        file.set_parameters({name: OrtValue.ortvalue_from_numpy(half) for name, half in halves})
        file.export_adapter(str(path))


def adapter_faults(checkpoint: Checkpoint, decoder: Decoder, recipe: Storages, variant: Path) -> list[str]:
    """What differs from the adapters of the decoder, one line each."""
    from onnxruntime import AdapterFormat

    del recipe
    faults = []
    for lora in decoder.adapters:
        try:
            file = AdapterFormat.read_adapter(str(adapter_file(variant, lora.name)))
        except RuntimeError as error:
            faults.append(f"adapter {lora.name} cannot be read: {str(error).splitlines()[0]}")
            continue
        found = file.get_parameters()
        for name, half in _halves(checkpoint, decoder, lora):
            if name not in found or not np.array_equal(found[name].numpy(), half):
                faults.append(f"adapter {lora.name}: {name} is not what the adapter says")
    return faults


def adapter_bytes(decoder: Decoder, recipe: Storages) -> int:
    """Of all adapters' files, their headers left out."""
    del recipe
    values = sum(
        rank(lora, stack) * (stack.rows + stack.columns)
        for lora in decoder.adapters
        for stack in changed(decoder)
    )
    return 4 * values


def _halves(checkpoint: Checkpoint, decoder: Decoder, lora: Lora) -> Iterator[tuple[str, Floats]]:
    """Name and values of each graph input that the adapter feeds."""
    for stack in (s for s in changed(decoder) if rank(lora, s)):
        a, b = read_stack(checkpoint, lora, stack)
        yield f"{stack.name}.lora_a", np.ascontiguousarray(a.T)
        yield f"{stack.name}.lora_b", np.ascontiguousarray(b.T)

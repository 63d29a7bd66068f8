"""Adapters that belong to a model, as Phi-4-multimodal's do: a graph of its own for each, one base beneath all.

An adapter as large as these (a tenth of the base) is not fed at run time in float32 (converters.onnx.lora): its halves
are weights like others, stored by the recipe and multiplied by the same kernels, beside the base and never merged into
it. The graphs are small files; they name the same bytes of the base's data file, and those of their adapter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from converters.decoder import Decoder, Lora, Weight
from converters.lora import Stack, stacks
from converters.onnx.graph import Graph
from converters.onnx.layout import Layout, lay_out
from converters.onnx.parts import linear
from converters.onnx.tensors import Stored
from converters.writer import Storages


@dataclass(frozen=True)
class Update:
    """Of one stack: y += scale * b (a x). `b`: one for the stack, or where storages differ one for each weight."""

    stack: Stack
    a: Stored
    b: tuple[Stored, ...]
    scale: float


@dataclass(frozen=True)
class BuiltIn:
    """An adapter's data file, and its updates by the first weight of their stacks."""

    layout: Layout
    updates: Mapping[str, Update]


def plan_built_in(decoder: Decoder, lora: Lora, recipe: Storages, file: str) -> BuiltIn:
    """ValueError where the layers of one stack were adapted apart: such an adapter is none of these."""
    pairs = {pair.weight: pair for pair in lora.pairs}
    updates: dict[str, Update] = {}
    for stack in (stack for layer in decoder.layers for stack in stacks(layer)):
        found = [pairs[weight.name] for weight in stack.weights if weight.name in pairs]
        if not found:
            continue
        if len(found) < len(stack.weights) or len({(pair.a.parts, pair.scale) for pair in found}) > 1:
            raise ValueError(f"adapter {lora.name} changes the layers of {stack.name} apart")
        name = f"{lora.name}.{stack.name}"
        a, halves = found[0].a, tuple(pair.b for pair in found)
        storages = {recipe.storage(half) for half in halves}
        updates[stack.weights[0].name] = Update(
            stack,
            Stored(f"{name}.lora_a", recipe.storage(a), (a,)),
            (Stored(f"{name}.lora_b", storages.pop(), halves),)
            if len(storages) == 1
            else tuple(
                Stored(f"{lora.name}.{pair.weight}.lora_b", recipe.storage(pair.b), (pair.b,))
                for pair in found
            ),
            found[0].scale,
        )
    stored = tuple(part for update in updates.values() for part in (update.a, *update.b))
    return BuiltIn(lay_out(file, stored), updates)


def add_product(graph: Graph, update: Update, x: str, outputs: list[str], accuracy_level: int) -> list[str]:
    """The stack's `outputs` (one for each weight, or one for all) for the input `x`, each with its update added."""
    name, stack = update.a.name.removesuffix(".lora_a"), update.stack
    inner = linear(graph, update.a, x, f"{name}.lora_inner", accuracy_level=accuracy_level)
    scale = graph.constant(f"{name}.lora_scale", np.array(update.scale, np.float32))
    inner = graph.node("Mul", [inner, scale], f"{name}.lora_scaled")
    parts = [linear(graph, b, inner, f"{b.name}.out", accuracy_level=accuracy_level) for b in update.b]
    if len(parts) > len(outputs):
        parts = [graph.node("Concat", parts, f"{name}.lora", axis=-1)]
    elif len(parts) < len(outputs):
        sizes = graph.constant(f"{name}.lora_rows", [weight.rows for weight in stack.weights])
        parts, whole = [f"{name}.lora_{i}" for i in range(len(outputs))], parts[0]
        graph.node("Split", [whole, sizes], parts, axis=-1)
    pairs = zip(outputs, parts, strict=True)
    return [graph.node("Add", [output, part], f"{output}.adapted") for output, part in pairs]


def halves(lora: Lora) -> list[Weight]:
    """The halves of its updates, a shared one once."""
    found = {half.parts: half for pair in lora.pairs for half in (pair.a, pair.b)}
    return list(found.values())

"""Low-rank updates by the matrices that runtimes multiply by, and as the reference computes them.

Runtimes keep some of a layer's matrices one above the other and feed them one input: q, k and v; gate and up. The
updates of such a stack are one update: its `a` is theirs one above the other, a shared one once, and its `b` holds
each one's rows in the columns of its `a`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from converters.checkpoint import Checkpoint
from converters.decoder import Decoder, GatedMlp, Layer, Lora, LoraPair, Weight
from converters.forward import Floats, Weights


@dataclass(frozen=True)
class Stack:
    """Matrices with one input, in the order of their rows."""

    name: str
    weights: tuple[Weight, ...]

    @property
    def rows(self) -> int:
        return sum(weight.rows for weight in self.weights)

    @property
    def columns(self) -> int:
        return self.weights[0].shape[1]


def stacks(layer: Layer) -> tuple[Stack, ...]:
    """Those of one layer that adapters may change, in forward order: not experts', and not GEGELU's."""
    attention, mlp = layer.q.name.removesuffix(".q"), layer.mlp
    mixing = Stack(f"{attention}.qkv", (layer.q, layer.k, layer.v)), Stack(layer.o.name, (layer.o,))
    if not isinstance(mlp, GatedMlp):
        return mixing
    gate_up = Stack(f"{mlp.gate.name.removesuffix('.gate')}.gate_up", (mlp.gate, mlp.up))
    return *mixing, gate_up, Stack(mlp.down.name, (mlp.down,))


def changed(decoder: Decoder) -> Iterator[Stack]:
    """The stacks that some adapter of the decoder changes."""
    names = {pair.weight for lora in decoder.adapters for pair in lora.pairs}
    for layer in decoder.layers:
        yield from (s for s in stacks(layer) if any(weight.name in names for weight in s.weights))


def rank(lora: Lora, stack: Stack) -> int:
    """Of the stack's update; 0 where the adapter leaves it as it is."""
    return sum(a.rows for a in _downs(_of(lora, stack)))


def read_stack(checkpoint: Checkpoint, lora: Lora, stack: Stack) -> tuple[Floats, Floats]:
    """The stack's update as (a [rank, columns], b [rows, rank]), float32, the scale within `b`."""
    pairs = _of(lora, stack)
    downs = _downs(pairs)
    a = np.zeros((sum(down.rows for down in downs), stack.columns), np.float32)
    columns: dict[str, slice] = {}
    for down in downs:
        start = sum(s.stop - s.start for s in columns.values())
        columns[down.name] = slice(start, start + down.rows)
        a[columns[down.name]] = checkpoint.weight_rows(down, 0, down.rows)
    b = np.zeros((stack.rows, len(a)), np.float32)
    first = 0
    for weight in stack.weights:
        for pair in (p for p in pairs if p.weight == weight.name):
            rows = checkpoint.weight_rows(pair.b, 0, pair.b.rows).astype(np.float32)
            b[first : first + weight.rows, columns[pair.a.name]] = rows * np.float32(pair.scale)
        first += weight.rows
    return a, b


def _of(lora: Lora, stack: Stack) -> list[LoraPair]:
    names = {weight.name for weight in stack.weights}
    return [pair for pair in lora.pairs if pair.weight in names]


def _downs(pairs: list[LoraPair]) -> list[Weight]:
    """Each `a` once."""
    return list({pair.a.name: pair.a for pair in pairs}.values())


class Adapted:
    """`converters.forward.Weights` with an adapter: its products are added, never merged into a weight."""

    def __init__(self, base: Weights, halves: Weights, lora: Lora) -> None:
        """`halves`: where those of the updates come from."""
        self._base = base
        self._halves = halves
        self._pairs = {pair.weight: pair for pair in lora.pairs}

    def vector(self, weight: Weight) -> Floats:
        return self._base.vector(weight)

    def project(self, weight: Weight, inputs: Floats) -> Floats:
        outputs = self._base.project(weight, inputs)
        if pair := self._pairs.get(weight.name):
            inner = self._halves.project(pair.a, inputs)
            outputs += np.float32(pair.scale) * self._halves.project(pair.b, inner)
        return outputs

"""What a budget buys: the matrices that get one storage together, and what each storage of them takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from converters.decoder import Decoder, Weight
from converters.errors import UnsupportedError
from converters.writer import Storage
from quant.blocks import BLOCK, FORMATS
from quant.recipe import Recipe, Rule

PlannedBytes = Callable[[Recipe], int]
"""The size of one artifact that is asked for, by its recipe."""


@dataclass(frozen=True)
class Group:
    """Matrices of one storage, and the pattern that matches them alone."""

    pattern: str
    weights: tuple[Weight, ...]

    @property
    def in_blocks(self) -> bool:
        return self.weights[0].shape[1] % BLOCK == 0

    def size(self) -> int:
        """How many weights."""
        return sum(w.rows * w.shape[1] for w in self.weights)


def fused(decoder: Decoder) -> list[Group]:
    """Every matrix once, in forward order, with those that a runtime multiplies together."""
    groups = [Group(decoder.embedding.name, (decoder.embedding,))]
    for layer in decoder.layers:
        groups += [
            Group(f"{layer.q.name[:-1]}[qkv]", (layer.q, layer.k, layer.v)),
            Group(layer.o.name, (layer.o,)),
            Group(f"{layer.dense.gate.name.removesuffix('gate')}[gu]*", (layer.dense.gate, layer.dense.up)),
            Group(layer.dense.down.name, (layer.dense.down,)),
        ]
    return groups if decoder.tied else [*groups, Group(decoder.lm_head.name, (decoder.lm_head,))]


def bits_per_weight(decoder: Decoder, recipe: Recipe) -> float:
    """Mean over all matrices, with 16-bit scales."""
    matrices = [w for w in decoder.weights() if w.is_matrix]
    bits = sum(w.rows * w.shape[1] * _bits(recipe.storage(w)) for w in matrices)
    return bits / sum(w.rows * w.shape[1] for w in matrices)


def _bits(storage: str) -> float:
    if storage in FORMATS:
        return FORMATS[storage].gguf_bytes * 8 / BLOCK
    return 32 if storage == "f32" else 16


@dataclass(frozen=True)
class Sizes:
    """of: bytes of each group, by pattern, in each storage. fixed: bytes that no choice changes. unit: how much of
    the budget's own unit a byte is."""

    of: dict[str, dict[Storage, int]]
    fixed: int
    unit: float

    def limit(self, asked: float) -> float:
        """The bytes that the groups may have together."""
        return asked / self.unit - self.fixed

    def check(self, asked: float, option: str, name: str) -> None:
        """UnsupportedError for a budget outside what the storages reach."""
        low, high = (
            (sum(pick(sizes.values()) for sizes in self.of.values()) + self.fixed) * self.unit
            for pick in (min, max)
        )
        # To two decimals that can be asked for.
        low, high = math.ceil(low * 100 - 1e-6) / 100, math.floor(high * 100 + 1e-6) / 100
        if not asked >= low:
            raise UnsupportedError(
                f"{option} {asked:g} is below the smallest recipe, {low:g} {name}: everything at 4 bits with scales",
                hint=f"try: {option} {low:g}",
            )
        if asked > high:
            raise UnsupportedError(
                f"{option} {asked:g} is above the largest recipe, {high:g} {name}: everything as int8",
                hint=f"try: {option} {high:g}, or --precision int8, f16, bf16 or f32",
            )


def by_bits(decoder: Decoder, groups: Sequence[Group], options: Sequence[Storage]) -> Sizes:
    """With 16-bit scales, whatever the format."""
    every = fused(decoder)
    return Sizes(
        {g.pattern: {s: int(g.size() * _bits(s) // 8) for s in options} for g in groups},
        fixed=sum(2 * g.size() for g in every if not g.in_blocks),
        unit=8 / sum(g.size() for g in every),
    )


def by_bytes(groups: Sequence[Group], options: Sequence[Storage], artifacts: Sequence[PlannedBytes]) -> Sizes:
    """As the artifacts have it; of several, a group is as large as in the one where it is largest."""
    everything = Rule("*", options[0], "rtn")
    base = [planned(Recipe("least", (everything,))) for planned in artifacts]
    sizes: dict[str, dict[Storage, int]] = {}
    for group in groups:
        sizes[group.pattern] = {}
        for storage in options:
            recipe = Recipe("one", (Rule(group.pattern, storage, "rtn"), everything))
            more = (planned(recipe) - least for planned, least in zip(artifacts, base, strict=True))
            sizes[group.pattern][storage] = max(more)
    return Sizes(sizes, fixed=max(base), unit=1e-6)

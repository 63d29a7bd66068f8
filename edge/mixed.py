"""`--bits-per-weight` and `--size-mb`: a storage for every matrix, chosen by what it costs in KL divergence.

The costs are measured once a checkpoint (`quant.sensitivity`: one backward pass over some text) and kept in the
cache; the choice is a knapsack (`quant.knapsack`). What a runtime multiplies in one product gets one storage: q, k
and v, and gate and up. Every format that is asked for must hold it, so that all get the same codes.
"""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from converters.checkpoint import Checkpoint
from converters.decoder import Decoder, Weight
from converters.errors import UnsupportedError
from converters.forward import SCORE_BYTES
from converters.reference import CHUNK_BYTES
from converters.writer import Storage
from edge.progress import Progress
from edge.sources.cache import exclusive, place, write_whole
from quant.activation_store import OnDisk
from quant.blocks import BLOCK, FORMATS
from quant.knapsack import Choice, Solution, solve
from quant.recipe import Recipe, Rule
from quant.sensitivity import ROWS, Costs, measure

WINDOWS = 8
"""Of 512 tokens: a single cost then has a standard error of a tenth (benchmarks/sensitivity.py)."""
# Bump it when the same checkpoint and text would give other costs.
VERSION = 1


@dataclass(frozen=True)
class Budget:
    """One of the two. bits_per_weight: mean over all matrices, embedding and lm_head included, with their 16-bit
    scales (an ONNX file keeps those in 32 bits: half a bit more). megabytes: the largest artifact's weights file."""

    bits_per_weight: float | None = None
    megabytes: float | None = None


@dataclass(frozen=True)
class Mixed:
    """A recipe and what was expected of it.

    kl, best: estimated nats a token, and what no recipe can go below. memory_bytes: of measuring the costs.
    """

    recipe: Recipe
    bits_per_weight: float
    kl: float
    best: float
    memory_bytes: int

    def note(self) -> str:
        return (
            f"recipe {self.recipe.name}: {self.bits_per_weight:.3f} bits a weight, "
            f"expected KL {self.kl:.3g} nats a token when rounded to nearest"
        )


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


PlannedBytes = Callable[[Recipe], int]
"""The size of one artifact that is asked for, by its recipe."""


def choose_recipe(
    checkpoint: Checkpoint,
    decoder: Decoder,
    windows: NDArray[np.int64],
    budget: Budget,
    formats: Sequence[str],
    artifacts: Sequence[PlannedBytes],
    progress: Progress,
) -> Mixed:
    """The recipe of least expected KL within `budget`, for all `formats` ("onnx", "gguf") and `artifacts`.

    windows: token ids [n, length]; WINDOWS of them are looked at. Raises UnsupportedError for a budget that no
    recipe meets, or that the largest stays below, and CheckpointError naming the weight that is not finite.
    """
    storages = [s for s, f in FORMATS.items() if f.in_onnx or "onnx" not in formats]
    options = cast(list[Storage], storages)
    groups = [g for g in fused(decoder) if g.in_blocks]
    if budget.bits_per_weight is not None:
        sizes, asked = _by_bits(decoder, groups, options), budget.bits_per_weight
        sizes.check(asked, "--bits-per-weight", "bits")
    else:
        sizes, asked = _by_bytes(groups, options, artifacts), budget.megabytes or 0
        sizes.check(asked, "--size-mb", "MB")
    costs = measured_costs(checkpoint, decoder, windows, progress)
    table = [
        [Choice(sizes.of[g.pattern][s], sum(costs[w.name][s] for w in g.weights)) for s in options]
        for g in groups
    ]
    found = solve(table, int(sizes.limit(asked) + 1e-6))
    return _mixed(decoder, groups, options, found, memory_bytes(decoder, windows.shape[1]))


def fused(decoder: Decoder) -> list[Group]:
    """Every matrix once, in forward order, with those that a runtime multiplies together."""
    groups = [Group(decoder.embedding.name, (decoder.embedding,))]
    for layer in decoder.layers:
        groups += [
            Group(f"{layer.q.name[:-1]}[qkv]", (layer.q, layer.k, layer.v)),
            Group(layer.o.name, (layer.o,)),
            Group(f"{layer.gate.name.removesuffix('gate')}[gu]*", (layer.gate, layer.up)),
            Group(layer.down.name, (layer.down,)),
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
class _Sizes:
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


def _by_bits(decoder: Decoder, groups: Sequence[Group], options: Sequence[Storage]) -> _Sizes:
    """With 16-bit scales, whatever the format."""
    every = fused(decoder)
    return _Sizes(
        {g.pattern: {s: int(g.size() * _bits(s) // 8) for s in options} for g in groups},
        fixed=sum(2 * g.size() for g in every if not g.in_blocks),
        unit=8 / sum(g.size() for g in every),
    )


def _by_bytes(
    groups: Sequence[Group], options: Sequence[Storage], artifacts: Sequence[PlannedBytes]
) -> _Sizes:
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
    return _Sizes(sizes, fixed=max(base), unit=1e-6)


def _mixed(
    decoder: Decoder, groups: Sequence[Group], options: Sequence[Storage], found: Solution, memory: int
) -> Mixed:
    picked = {g.pattern: options[pick] for g, pick in zip(groups, found.picks, strict=True)}
    usual = Counter(picked.values()).most_common(1)[0][0]
    rules = [Rule(pattern, storage, "rtn") for pattern, storage in picked.items() if storage != usual]
    everything = Rule("*", usual, "rtn")
    bits = bits_per_weight(decoder, Recipe("mixed", (*rules, everything)))
    recipe = Recipe(f"mixed {bits:.2f} bits", (*rules, everything))
    return Mixed(recipe, bits, found.cost, found.bound, memory)


def measured_costs(
    checkpoint: Checkpoint, decoder: Decoder, windows: NDArray[np.int64], progress: Progress
) -> Costs:
    """Nats a token by weight and block format, from the cache or measured now on WINDOWS of `windows`."""
    some = windows[np.unique(np.linspace(0, len(windows) - 1, WINDOWS).astype(np.intp))]
    length = some.shape[1]
    file = place("sensitivities", f"{_key(checkpoint, some)}.json")
    with exclusive(file):
        if file.is_file():
            return cast(Costs, json.loads(file.read_text()))
        progress.note(
            f"measuring what each storage of each matrix costs, on {len(some)} x {length} tokens (once a checkpoint, "
            f"about {memory_bytes(decoder, length) / 1e6:.0f} MB of memory)"
        )
        progress.stage("sensitivity", 2 * len(decoder.layers), "layers")
        with tempfile.TemporaryDirectory(dir=file.parent) as spill:
            costs = measure(
                checkpoint,
                decoder,
                some,
                cast(list[Storage], list(FORMATS)),
                scored=slice(length // 2, length - 1),
                store=OnDisk(Path(spill)),
                advance=progress.advance,
            )
        write_whole(file, json.dumps(costs, sort_keys=True).encode())
    return costs


def memory_bytes(decoder: Decoder, length: int) -> int:
    """Peak of measuring the costs on WINDOWS windows of `length` tokens; what is spilled is not in it."""
    matrices = [w for layer in decoder.layers[:1] for w in layer.weights() if w.is_matrix]
    width, count = decoder.hidden_size, len(FORMATS)
    layer = sum(w.rows * w.shape[1] for w in matrices)
    changes = sum(min(ROWS, w.rows) * w.shape[1] for w in matrices) * count
    # The residual stream and its gradient, and of the scored half what goes into lm_head, twice, and its labels' rows.
    streams = WINDOWS * length * width * 7 // 2
    # A chunk of lm_head, its errors, and for one window some arrays of as many logits, two of them in float64.
    logits = length // 2 * (CHUNK_BYTES // 4 // width) * 8
    head = (CHUNK_BYTES // 4) * (count + 3) + logits
    attention = decoder.attention.heads * decoder.attention.head_dim
    window = length * 12 * (decoder.intermediate_size + width + attention) + 3 * SCORE_BYTES // 4
    return 4 * (layer + changes + streams + head + window)


def _key(checkpoint: Checkpoint, windows: NDArray[np.int64]) -> str:
    """Of everything that decides the costs. Weights stand in by their files' sizes and times."""
    files = sorted({info.file for info in checkpoint.tensors.values()})
    identity = {
        "version": VERSION,
        "config": checkpoint.config,
        "files": [[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in files],
        "ids": hashlib.sha256(windows.tobytes()).hexdigest(),
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:24]

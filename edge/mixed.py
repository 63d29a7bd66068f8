"""`--bits-per-weight` and `--size-mb`: a storage for every matrix, chosen by what it costs in KL divergence.

The costs are measured once a checkpoint (`quant.sensitivity`: one backward pass over some text) and kept in the
cache; the choice is a knapsack (`quant.knapsack`). What a runtime multiplies in one product gets one storage: q, k
and v, and gate and up. Every format that is asked for must hold it, so that all get the same codes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from converters.checkpoint import Checkpoint
from converters.decoder import Decoder
from converters.plain import require_plain
from converters.rooms import ROOMS
from converters.writer import Storage
from edge.mixed_costs import measured_costs, measuring_memory
from edge.mixed_sizes import Group, PlannedBytes, bits_per_weight, by_bits, by_bytes, fused
from edge.progress import Progress
from quant.blocks import FORMATS
from quant.knapsack import Choice, Solution, solve
from quant.recipe import Recipe, Rule


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


def choose_recipe(
    checkpoint: Checkpoint,
    decoder: Decoder,
    windows: NDArray[np.int64],
    budget: Budget,
    formats: Sequence[str],
    artifacts: Sequence[PlannedBytes],
    progress: Progress,
) -> Mixed:
    """The recipe of least expected KL within `budget`, for all `formats` (names) and `artifacts`.

    windows: token ids [n, length]; WINDOWS of them are looked at. Raises UnsupportedError for a budget that no
    recipe meets, or that the largest stays below, and CheckpointError naming the weight that is not finite.
    """
    require_plain(decoder, "the measurement behind a budget", "name a --precision or a --recipe instead")
    storages = [s for s in FORMATS if all(s in ROOMS[name].BLOCK_FORMATS for name in formats)]
    options = cast(list[Storage], storages)
    groups = [g for g in fused(decoder) if g.in_blocks]
    if budget.bits_per_weight is not None:
        sizes, asked = by_bits(decoder, groups, options), budget.bits_per_weight
        sizes.check(asked, "--bits-per-weight", "bits")
    else:
        sizes, asked = by_bytes(groups, options, artifacts), budget.megabytes or 0
        sizes.check(asked, "--size-mb", "MB")
    costs = measured_costs(checkpoint, decoder, windows, progress)
    table = [
        [Choice(sizes.of[g.pattern][s], sum(costs[w.name][s] for w in g.weights)) for s in options]
        for g in groups
    ]
    found = solve(table, int(sizes.limit(asked) + 1e-6))
    return _mixed(decoder, groups, options, found, measuring_memory(decoder, windows.shape[1]))


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

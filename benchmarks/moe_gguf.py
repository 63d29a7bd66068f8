"""How near llama.cpp comes to Phi-3.5-MoE, by how its weights are rewritten: `python -m benchmarks.moe_gguf`.

Every idea is computed by the reference evaluator as llama.cpp would compute it (that the two agree is tested:
tests/converters/test_gguf_moe.py), on random models whose routers give scores of spread 1, and compared with the
model itself: KL in nats a token over POSITIONS tokens, mean over SEEDS models. Prints the tables of moe_gguf.md; the
second is of the model's own routing, with its attention in other storages than its experts' 4 bits.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from benchmarks.random_checkpoint import MOE_SHAPES, write_checkpoint
from converters import forward, routing
from converters.checkpoint import Checkpoint
from converters.decoder import Decoder, Experts, Routing, Weight
from converters.forward import Floats
from converters.models import describe
from converters.reference import Transform, logits
from converters.verify import divergence
from converters.writer import Storage
from quant.recipe import Recipe, Rule

POSITIONS, SEEDS = 256, 3
MODELS = {"2 layers": ("phi3.5-moe", 2), "8 layers": ("phi3.5-moe", 8), "8 experts": ("moe-8", 4)}


@dataclass(frozen=True)
class Idea:
    """centred: LayerNorm is exact. gate, down: factors of the routers and of the experts' downs. shares: downs are
    scaled by the mean share of each expert instead. copies: every expert thrice (see `_second_of_three`)."""

    name: str
    centred: bool = True
    gate: float = 1.0
    down: float = 2.0
    shares: bool = False
    copies: bool = False


IDEAS = (
    Idea("as it is", centred=False, down=1),
    Idea("centred", down=1),
    Idea("centred, downs x 2", gate=1),
    *(Idea(f"centred, downs x 2, routers x 2^-{k}", gate=2.0**-k) for k in (4, 7, 10, 14, 20)),
    Idea("the same with 2^-7, downs x 1.97", gate=2.0**-7, down=1.97),
    Idea("the same with 2^-7, downs x 1.94", gate=2.0**-7, down=1.94),
    Idea("the same with 2^-7, downs x 2 x the expert's mean share", gate=2.0**-7, shares=True),
    Idea("every expert three times, six chosen", copies=True),
)


def _second_of_three(scores: Floats, tolerance: float) -> tuple[NDArray[np.int64], Floats]:
    """What six of 3 x 16 experts give: of each the first copy (scores x 1, no output), the second (just below, half the
    output) and the third (scores x 0.98, the other half). The six best are the three of the best expert and two of the
    second; the last is the second's third, or the third's first where those tie: its share is then 1/2, as it must."""
    chosen, _ = routing.best_two(scores)
    ranked = -np.sort(-scores, axis=1)
    top = ranked[:, 1]
    near = (top - ranked[:, 2]) / np.maximum(np.abs(ranked[:, 2]), top) <= tolerance
    return chosen, np.stack([np.ones(len(scores)), np.where(near, 0.5, 1)], axis=1).astype(np.float32)


def _mean_shares(checkpoint: Checkpoint, decoder: Decoder, ids: NDArray[np.int64]) -> dict[str, float]:
    """By the name of an expert's down: the mean of its shares over the tokens that chose it."""
    seen: list[tuple[NDArray[np.int64], Floats]] = []
    routed = routing.sparsemixer

    def watched(scores: Floats, tolerance: float) -> tuple[NDArray[np.int64], Floats]:
        seen.append(routed(scores, tolerance))
        return seen[-1]

    with mock.patch.object(forward, "sparsemixer", watched):
        logits(checkpoint, decoder, ids.tolist())
    return {
        expert.down.name: float(shares[chosen == i].mean()) if (chosen == i).any() else 1.0
        for layer, (chosen, shares) in zip(decoder.layers, seen, strict=True)
        if isinstance(layer.mlp, Experts)
        for i, expert in enumerate(layer.mlp.experts)
    }


def _scaled(factors: dict[str, float]) -> Transform:
    def transform(weight: Weight, start: int, raw: NDArray[np.generic]) -> Floats:
        return raw.astype(np.float32) * np.float32(factors.get(weight.name, 1.0))

    return transform


def _try(checkpoint: Checkpoint, decoder: Decoder, idea: Idea, ids: NDArray[np.int64]) -> Floats:
    weighed: Routing = "sparsemixer" if idea.copies else "softmax"
    mixtures = [layer.mlp for layer in decoder.layers if isinstance(layer.mlp, Experts)]
    layers = tuple(
        replace(layer, mlp=replace(mlp, routing=weighed))
        for layer, mlp in zip(decoder.layers, mixtures, strict=True)
    )
    down = 1.0 if idea.copies else idea.down
    factors = {mlp.router.name: idea.gate for mlp in mixtures}
    factors |= {expert.down.name: down for mlp in mixtures for expert in mlp.experts}
    if idea.shares:
        other = np.random.default_rng(99).integers(5, decoder.vocab_size, POSITIONS)
        factors |= {name: down * share for name, share in _mean_shares(checkpoint, decoder, other).items()}
    computed = replace(decoder, layers=layers, norm="layer" if idea.centred else "rms")
    with mock.patch.object(forward, "sparsemixer", _second_of_three):
        return logits(checkpoint, computed, ids.tolist(), transform=_scaled(factors))


def measure(shape: str, layers: int, seed: int, directory: Path) -> Iterator[float]:
    """The KL of each of IDEAS on one random model."""
    write_checkpoint(directory, MOE_SHAPES[shape] | {"num_hidden_layers": layers}, seed=seed, dtype="f32")
    ids = np.random.default_rng(seed).integers(5, MOE_SHAPES[shape]["vocab_size"], POSITIONS)
    with Checkpoint.open(directory) as checkpoint:
        decoder = describe(checkpoint)
        truth = logits(checkpoint, decoder, ids.tolist())
        for idea in IDEAS:
            yield divergence(truth, _try(checkpoint, decoder, idea, ids)).kl_mean


ATTENTION: tuple[Storage, ...] = ("int4", "int8", "f16")


def measure_attention(shape: str, layers: int, seed: int, directory: Path) -> Iterator[float]:
    """The KL of each of ATTENTION beside experts of 4 bits, on the same random model."""
    ids = np.random.default_rng(seed).integers(5, MOE_SHAPES[shape]["vocab_size"], POSITIONS).tolist()
    with Checkpoint.open(directory) as checkpoint:
        decoder = describe(checkpoint)
        truth = logits(checkpoint, decoder, ids)
        for storage in ATTENTION:
            rule = Rule("*.attention.*", storage, "cast" if storage == "f16" else "rtn")
            recipe = Recipe(storage, (rule, *Recipe.preset("int4").rules))

            def through(
                weight: Weight, start: int, raw: NDArray[np.generic], recipe: Recipe = recipe
            ) -> Floats:
                return recipe.decode(recipe.encode(weight, raw, start=start))

            yield divergence(truth, logits(checkpoint, decoder, ids, transform=through)).kl_mean


def _table(head: str, names: Sequence[str], found: dict[str, NDArray[np.float64]]) -> None:
    print(f"| {head} | {' | '.join(found)} |\n|---|{'---|' * len(found)}")
    for i, name in enumerate(names):
        print(f"| {name} | {' | '.join(f'{kl[i]:.4f}' for kl in found.values())} |")
    print()


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    ideas, storages = {}, {}
    for name, (shape, layers) in MODELS.items():
        with tempfile.TemporaryDirectory() as work:
            places = [Path(work) / str(seed) for seed in range(SEEDS)]
            runs = [list(measure(shape, layers, seed, place)) for seed, place in enumerate(places)]
            ideas[name] = np.mean(runs, axis=0)
            runs = [list(measure_attention(shape, layers, seed, place)) for seed, place in enumerate(places)]
            storages[name] = np.mean(runs, axis=0)
    _table("how", [idea.name for idea in IDEAS], ideas)
    _table("attention, beside experts of 4 bits", ATTENTION, storages)


if __name__ == "__main__":
    main()

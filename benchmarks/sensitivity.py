"""Are predicted costs the KL that they predict? `python -m benchmarks.sensitivity CHECKPOINT --text FILE`.

Costs are measured as `edge convert --bits-per-weight` does, on the text that ships. Then, on FILE:

1. matrices are rounded to int4 one at a time, and the KL divergence beside the predicted one, for `--weights` of them
   drawn with a fixed seed, with the correlation of their logarithms;
2. whole recipes: all matrices in one storage, the preset int4, and mixed recipes of the same size, with what each was
   expected to cost and what it does.

Everything is rounded to nearest, in the numpy reference; no engine is involved. Windows are cut and scored as
llama-perplexity does. With `--json FILE` the figures are kept.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.checkpoint import Checkpoint
from converters.decoder import Decoder, Weight
from converters.forward import Floats, rms_norm, rope_table, run_layer
from converters.models import describe
from converters.reference import Resident, Streamed, head_logits, hidden_states
from edge.calibration_text import read_text
from edge.mixed import Budget, choose_recipe
from edge.mixed_costs import measured_costs
from edge.mixed_sizes import bits_per_weight
from edge.progress import Silent
from edge.sources import resolve
from quant import rtn
from quant.blocks import INT4, dequantize
from quant.recipe import Recipe, Rule
from quant.sensitivity import Costs

SEED = 20261123


def log_probabilities(logits: Floats) -> Floats:
    """In place, [n, vocabulary]."""
    logits -= logits.max(axis=1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return logits


class Judge:
    """KL from the float model, over the scored half of some windows."""

    def __init__(self, checkpoint: Checkpoint, decoder: Decoder, windows: NDArray[np.int64]) -> None:
        self.checkpoint, self.decoder, self.windows = checkpoint, decoder, windows
        length = windows.shape[1]
        self._scored = slice(length // 2, length - 1)
        self._hidden = self._final(None)

    def recipe(self, recipe: Recipe) -> tuple[float, float]:
        """(mean, standard error over windows) with every matrix stored as `recipe` says."""
        return self._kl(self._final(recipe), recipe)

    def single(self, weights: Sequence[Weight]) -> dict[str, tuple[float, float]]:
        """With one of `weights` at a time rounded to int4: all at once, a layer's weights read once."""
        decoder = self.decoder
        streamed = Streamed(self.checkpoint)
        cos, sin = rope_table(decoder.rope, self.windows.shape[1])
        plain = streamed.gather(decoder.embedding, self.windows.reshape(-1))
        plain = plain.reshape(*self.windows.shape, -1)
        changed: dict[str, Floats] = {}
        for layer in decoder.layers:
            weights_of_layer = Resident(streamed, layer)
            for weight in layer.weights():
                if weight in weights:
                    changed[weight.name] = plain.copy()
            for name, hidden in changed.items():
                mine = weights_of_layer
                found = next((w for w in layer.weights() if w.name == name), None)
                if found:
                    mine = weights_of_layer.copy()
                    mine.replace(found, dequantize(rtn.quantize(mine.matrix(found), INT4)))
                for sequence in hidden:
                    run_layer(mine, layer, decoder, sequence, cos, sin)
            for sequence in plain:
                run_layer(weights_of_layer, layer, decoder, sequence, cos, sin)
        gain = streamed.vector(decoder.final_norm)
        return {
            name: self._kl(rms_norm(hidden[:, self._scored], gain, decoder.norm_eps), None)
            for name, hidden in changed.items()
        }

    def _final(self, recipe: Recipe | None) -> Floats:
        transform = None if recipe is None else _stored(recipe)
        hidden = hidden_states(self.checkpoint, self.decoder, self.windows, transform=transform)
        return hidden[:, self._scored]

    def _kl(self, hidden: Floats, recipe: Recipe | None) -> tuple[float, float]:
        transform = None if recipe is None else _stored(recipe)
        means = []
        for before, after in zip(self._hidden, hidden, strict=True):
            p = log_probabilities(head_logits(self.checkpoint, self.decoder, before))
            q = log_probabilities(head_logits(self.checkpoint, self.decoder, after, transform=transform))
            means.append(float(np.mean(np.sum(np.exp(p) * (p - q), axis=1, dtype=np.float64))))
        return float(np.mean(means)), float(np.std(means, ddof=1) / np.sqrt(len(means)))


def _stored(recipe: Recipe) -> Any:
    def transform(weight: Weight, start: int, rows: NDArray[np.generic]) -> Floats:
        return Recipe.decode(recipe.encode(weight, rows, start=start))

    return transform


def recipes(judge: Judge, calibration: NDArray[np.int64]) -> list[tuple[str, Recipe]]:
    """Uniform ones, and mixed ones of their sizes, for GGUF and for both formats."""
    uniform = [(s, Recipe(s, (Rule("*", s, "rtn"),))) for s in ("int4", "int4_asym", "int5")]
    found = [*uniform, ("preset int4", Recipe.preset("int4"))]
    checkpoint, decoder = judge.checkpoint, judge.decoder
    for name, recipe in found[1:]:
        bits = bits_per_weight(decoder, recipe)
        for formats in (("gguf",), ("gguf", "onnx")):
            if name == "int5" and "onnx" in formats:
                continue
            mixed = choose_recipe(
                checkpoint, decoder, calibration, Budget(bits_per_weight=bits), formats, (), Silent()
            )
            found.append((f"mixed for {'+'.join(formats)}, size of {name}", mixed.recipe))
    return found


def expected(decoder: Decoder, recipe: Recipe, costs: Costs) -> float:
    """The sum of the costs, nats a token."""
    return sum(costs[w.name][recipe.storage(w)] for w in decoder.weights() if w.name in costs)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint")
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--weights", type=int, default=14, help="matrices rounded one at a time")
    parser.add_argument("--windows", type=int, default=8, help="of 512 tokens of the text")
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with Checkpoint.open(resolve(options.checkpoint).directory) as checkpoint:
        decoder = describe(checkpoint)
        calibration = read_text(None, checkpoint.directory, decoder).windows
        costs = measured_costs(checkpoint, decoder, calibration, Silent())
        windows = read_text(options.text, checkpoint.directory, decoder).windows[:, : options.length]
        every = np.linspace(0, len(windows) - 1, options.windows).astype(np.intp)
        judge = Judge(checkpoint, decoder, windows[every])
        linear = [w for layer in decoder.layers for w in layer.weights() if w.name in costs]
        rng = np.random.default_rng(SEED)
        picked = [linear[i] for i in sorted(rng.choice(len(linear), options.weights, replace=False))]
        single = judge.single(picked)
        print(f"{'int4 alone':30}{'KL':>10}{'+-':>9}{'predicted':>11}")
        for name, (kl, error) in single.items():
            print(f"{name:30}{kl:10.2e}{error:9.0e}{costs[name]['int4']:11.2e}", flush=True)
        logs = np.log([[kl, costs[name]["int4"]] for name, (kl, _) in single.items()])
        print(f"correlation of logarithms {np.corrcoef(logs.T)[0, 1]:.3f}, ", end="")
        print(f"median of predicted / measured {np.exp(np.median(logs[:, 1] - logs[:, 0])):.2f}\n")
        rows = []
        print(f"{'recipe':42}{'bits':>7}{'expected':>10}{'KL':>9}{'+-':>8}")
        for name, recipe in recipes(judge, calibration):
            kl, error = judge.recipe(recipe)
            bits, before = bits_per_weight(decoder, recipe), expected(decoder, recipe, costs)
            rows.append({"recipe": name, "bits": bits, "expected": before, "kl": kl, "standard_error": error})
            print(f"{name:42}{bits:7.3f}{before:10.4f}{kl:9.4f}{error:8.4f}", flush=True)
        if options.json:
            options.json.write_text(json.dumps({"single": single, "costs": costs, "recipes": rows}, indent=1))


if __name__ == "__main__":
    main()

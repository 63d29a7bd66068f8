"""What LoftQ wins back of int4 on the twins of the embedded default: `python -m benchmarks.loftq TWINS --texts TEXTS`.

TWINS is the folder of `python -m benchmarks.twins`, TEXTS that of `python -m benchmarks.texts`. The default's own
weights lie on a 4-bit grid, so what rounding costs is measured on the same function in other weights: rotated (no
outliers) and permuted (all of them). For every rank: the best low-rank approximation of what rounding to nearest loses
(one iteration: plain LoRA beside the backbone that ships anyway), LoftQ's alternation (T iterations), and each of them
after a short training on training.txt. Mean KL from the unrounded twin in nats a token, over windows of technical.txt
and fiction.txt, of which nothing is in training.txt; the device's own codec, float32 elsewhere. One line as each is
measured.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel

from benchmarks.distill import MEASURED, training_text
from converters.checkpoint import Checkpoint
from converters.decoder import Weight
from converters.models import describe
from edge.distilling.data import read_words
from quant.adapters.linears import linears
from quant.adapters.loftq import correct_checkpoint
from quant.adapters.peft_files import write_adapter
from quant.adapters.training import Training, deploy, divergence, load_model, train
from quant.recipe import Recipe

TWINS = ("rotated", "permuted")
RECIPE = Recipe.preset("int4")


def round_trip(weight: Weight, start: int, rows: NDArray[Any]) -> NDArray[np.float32]:
    """What the device computes with."""
    return RECIPE.decode(RECIPE.encode(weight, rows, start=start))


class Judge:
    """A model beside its teacher on held-out windows."""

    def __init__(self, teacher: Any, windows: NDArray[np.int64]) -> None:
        self._windows = torch.from_numpy(windows)
        self._expected = [self._logits(teacher, window) for window in self._windows]

    @staticmethod
    @torch.no_grad()
    def _logits(model: Any, window: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = model(input_ids=window[None], use_cache=False).logits[0]
        return logits

    def kl(self, model: Any) -> float:
        """Mean KL(teacher || model), nats a token."""
        pairs = zip(self._expected, self._windows, strict=True)
        return mean(divergence(expected, self._logits(model, window)).item() for expected, window in pairs)


def measure(
    twin: Path,
    training: NDArray[np.int64],
    held_out: NDArray[np.int64],
    ranks: Sequence[int],
    iterations: int,
    steps: int,
    rate: float,
) -> Iterator[tuple[str, float, float, float | None]]:
    """(what, mean over the layers of ||W - Q - B A|| / ||W||, KL, KL after the training or None where is none)."""
    teacher = load_model(twin)
    judge = Judge(teacher, held_out)
    for rank in ranks:
        for count in (1, iterations):
            with tempfile.TemporaryDirectory() as name, Checkpoint.open(twin) as checkpoint:
                base, adapter = Path(name) / "base", Path(name) / "adapter"
                base.mkdir()
                decoder = describe(checkpoint)
                pairs, told = correct_checkpoint(
                    checkpoint, linears(decoder), round_trip, base,
                    rank=rank, iterations=count, advance=lambda n: None,
                )  # fmt: skip
                write_adapter(adapter, pairs, twin.name)
                student = load_model(base)
                with Checkpoint.open(base) as written:
                    deploy(student, written, decoder, round_trip)
                if (rank, count) == (ranks[0], 1):
                    yield (
                        "int4, rounded to nearest",
                        mean(t["errors"][0] for t in told),
                        judge.kl(student),
                        None,
                    )
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    adapted: Any = PeftModel.from_pretrained(student, str(adapter), is_trainable=True)
                before = judge.kl(adapted)
                after = None
                if steps:
                    train(adapted, teacher, training, Training(steps, rate=rate, batch=1))
                    after = judge.kl(adapted)
                error = mean(min(t["errors"][1:]) for t in told)
                yield (
                    f"rank {rank}, {'LoRA of the residual' if count == 1 else f'LoftQ T={count}'}",
                    error,
                    before,
                    after,
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("twins", type=Path)
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--twin", metavar="FOLDER", action="append", help="one of TWINS [default: both]")
    parser.add_argument("--ranks", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--iterations", type=int, default=5)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--windows", type=int, default=8, help="of each text, to measure on")
    options = parser.parse_args()
    print("twin      what                          weights' error      KL  KL after training", flush=True)
    for name in options.twin or TWINS:
        twin = options.twins / name
        with tempfile.TemporaryDirectory() as folder:
            text = training_text(options.texts, Path(folder), options.steps * options.length)
            training, _ = read_words(text, twin, options.length)
        found = [read_words(options.texts / f"{each}.txt", twin, options.length)[0] for each in MEASURED]
        held_out = np.concatenate(
            [ids[np.linspace(0, len(ids) - 1, options.windows).astype(int)] for ids in found]
        )
        sizes = (options.ranks, options.iterations, options.steps, options.rate)
        for what, error, before, after in measure(twin, training, held_out, *sizes):
            trained = "" if after is None else f"{after:.4f}"
            print(f"{name:8}  {what:28}  {error:14.4f}  {before:6.4f}  {trained:>17}", flush=True)


if __name__ == "__main__":
    main()

"""AdaLoRA beside plain LoRA as the healing step after pruning: `python -m benchmarks.heal DIR --texts TEXTS`.

The embedded default loses a share of its neurons (PLATON), is stored as int4, and is healed against the model as it
came, once by a LoRA of one rank for every matrix and once by AdaLoRA with as many ranks in all, which training shares
out; as many steps over the same windows of training.txt (`python -m benchmarks.texts TEXTS`). Mean KL from the model as
it came in nats a token, over windows of technical.txt and fiction.txt. DIR/pruned is made once.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from peft import PeftModel

from benchmarks.distill import MEASURED, training_text
from benchmarks.loftq import Judge, round_trip
from converters.checkpoint import Checkpoint
from converters.models import describe
from edge.cli.console import open_progress
from edge.distilling.data import read_words
from edge.prune import PruneRequest, prune
from edge.sources import resolve
from quant.adapters import adalora, lora_training
from quant.adapters.linears import Linear, Pairs, linears
from quant.adapters.peft_files import write_adapter
from quant.adapters.training import Training, deploy, load_model
from quant.prune.settings import Settings

Windows = NDArray[np.int64]
Heal = Callable[[Any, Any, list[Linear], Windows, Training], Pairs]


def plain(rank: int) -> Heal:
    """LoRA as arXiv 2106.09685 begins it: a uniform within 1 / sqrt(in), b zero."""

    def heal(model: Any, teacher: Any, found: list[Linear], windows: Windows, training: Training) -> Pairs:
        rng = np.random.default_rng(training.seed)
        begun = {
            each.module: (
                (rng.uniform(-1, 1, (rank, each.shape[1])) / np.sqrt(each.shape[1])).astype(np.float32),
                np.zeros((each.shape[0], rank), np.float32),
            )
            for each in found
        }
        with tempfile.TemporaryDirectory() as name:
            write_adapter(Path(name) / "begun", begun, "pruned")
            return lora_training.heal(model, teacher, Path(name) / "begun", found, windows, training)[0]

    return heal


def shared_out(rank: int) -> Heal:
    """AdaLoRA; `rank` on average."""

    def heal(model: Any, teacher: Any, found: list[Linear], windows: Windows, training: Training) -> Pairs:
        schedule = adalora.Schedule.of(rank, training.steps)
        return adalora.heal(model, teacher, found, windows, schedule, training)[0]

    return heal


def measure(
    source: Path,
    pruned: Path,
    windows: Windows,
    held_out: Windows,
    rank: int,
    trainings: Sequence[Training],
) -> Iterator[tuple[str, float, int, str]]:
    """(what, KL, parameters of the adapter, its smallest and largest rank)."""
    teacher = load_model(source)
    judge = Judge(teacher, held_out)
    with Checkpoint.open(pruned) as checkpoint:
        decoder = describe(checkpoint)

        def stored() -> Any:
            model = load_model(pruned)
            deploy(model, checkpoint, decoder, round_trip)
            return model

        yield "pruned", judge.kl(load_model(pruned)), 0, ""
        yield "pruned, int4", judge.kl(stored()), 0, ""
        for training in trainings:
            for name, heal in {"LoRA": plain(rank), "AdaLoRA": shared_out(rank)}.items():
                pairs = heal(stored(), teacher, linears(decoder), windows, training)
                with tempfile.TemporaryDirectory() as folder:
                    write_adapter(Path(folder) / "adapter", pairs, "pruned")
                    healed = PeftModel.from_pretrained(stored(), str(Path(folder) / "adapter"))
                    ranks = [len(a) for a, _ in pairs.values()]
                    missing = len(linears(decoder)) - len(ranks)
                    size = sum(a.size + b.size for a, b in pairs.values())
                    spread = f"{0 if missing else min(ranks)}..{max(ranks)}"
                    yield f"{name}, rate {training.rate:g}", judge.kl(healed), size, spread


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--neurons", type=float, default=0.75)
    parser.add_argument("--prune-steps", type=int, default=50)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--windows", type=int, default=8, help="of each text, to measure on")
    options = parser.parse_args()
    options.directory.mkdir(parents=True, exist_ok=True)
    source, pruned = resolve(options.model).directory, options.directory / "pruned"
    text = training_text(options.texts, options.directory, options.steps * options.batch * options.length)
    if not pruned.exists():
        settings = Settings(
            None, {"neurons": options.neurons}, options.prune_steps,
            batch=options.batch, length=options.length, window=2,
        )  # fmt: skip
        prune(PruneRequest(str(source), pruned, settings, text), open_progress())
    windows, _ = read_words(text, source, options.length)
    found = [read_words(options.texts / f"{each}.txt", source, options.length)[0] for each in MEASURED]
    held_out = np.concatenate(
        [ids[np.linspace(0, len(ids) - 1, options.windows).astype(int)] for ids in found]
    )
    trainings = [Training(options.steps, rate=rate, batch=options.batch) for rate in options.rates]
    print("what                       KL  parameters  ranks", flush=True)
    for what, kl, size, ranks in measure(source, pruned, windows, held_out, options.rank, trainings):
        print(f"{what:22}  {kl:6.4f}  {size:10,}  {ranks}", flush=True)


if __name__ == "__main__":
    main()

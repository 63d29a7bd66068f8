"""PLATON beside sensitivity and magnitude: `python -m benchmarks.prune DIR --texts TEXTS`.

The embedded default is pruned by each score in the same code, with the same schedule, steps, text and seeds: single
weights (--keep) and whole MLP neurons (--neurons). On technical.txt and fiction.txt of `python -m benchmarks.texts
TEXTS`, of which nothing is in the training text, are measured the pruned model's perplexity and its mean KL from the
unpruned one. One line a run goes into DIR/results.jsonl; a rerun makes only those that are missing; the table gives
mean and standard deviation over the seeds. More than a smoke test takes hours: --steps 1000 --window 10 --seeds 5.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any, get_args

from benchmarks import results
from benchmarks.distill import MEASURED, measure, training_text
from edge.cli.console import open_progress, table
from edge.prune import PruneRequest, prune
from edge.sources import resolve
from quant.prune.settings import Score, Settings

Row = dict[str, Any]
FIGURES = tuple(f"{text} {what}" for text in MEASURED for what in ("perplexity", "KL"))


def settings_of(options: argparse.Namespace, what: str, score: Score, seed: int) -> Settings:
    return Settings(
        keep=options.keep if what == "weights" else None,
        units={"neurons": options.neurons} if what == "neurons" else {},
        steps=options.steps,
        batch=options.batch,
        length=options.length,
        rate=options.rate,
        seed=seed,
        window=options.window,
        bf16=options.bf16,
        score=score,
    )


def measure_one(options: argparse.Namespace, settings: Settings, text: Path, model: Path) -> Row:
    """Prune once, measure the result, and leave nothing of it."""
    began, output = time.monotonic(), options.directory / "pruned"
    shutil.rmtree(output, ignore_errors=True)
    shrink = prune(PruneRequest(str(model), output, settings, text), open_progress())
    row: Row = {"seconds": round(time.monotonic() - began), "settings": settings.to_data()}
    row |= {key: shrink["result"][key] for key in ("parameters_after", "zeros")}
    row |= measure(output, model, options.texts, options.windows, options.length)
    shutil.rmtree(output)
    return row


def summary(rows: Sequence[Row]) -> list[str]:
    """Mean and standard deviation over the seeds of each score, as lines."""
    lines = []
    for what, score in dict.fromkeys((r["what"], r["score"]) for r in rows):
        of_it = [r for r in rows if (r["what"], r["score"]) == (what, score)]
        cells = []
        for name in FIGURES:
            values = [r[name] for r in of_it]
            cells.append(f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else ""))
        parameters = f"{(of_it[0]['parameters_after'] - of_it[0]['zeros']) / 1e6:.1f}"
        lines.append([what, score, str(len(of_it)), parameters, *cells])
    return table(["pruned", "score", "seeds", "M not zero", *FIGURES], lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path)
    parser.add_argument("--texts", type=Path, required=True, help="the folder of benchmarks.texts")
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--what", nargs="+", choices=("weights", "neurons"), default=("weights", "neurons"))
    parser.add_argument("--scores", nargs="+", choices=get_args(Score), default=get_args(Score))
    parser.add_argument("--keep", type=float, default=0.6, help="share of the single weights")
    parser.add_argument("--neurons", type=float, default=0.75, help="share of each MLP's neurons")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--window", type=int, default=2)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--rate", type=float, default=5e-5)
    parser.add_argument("--windows", type=int, default=16, help="of each text, to measure on")
    parser.add_argument("--bf16", action="store_true")
    options = parser.parse_args()
    options.directory.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = results.read(options.directory)
    model = resolve(options.model).directory
    text = training_text(options.texts, options.directory, options.steps * options.batch * options.length)
    for seed in range(options.seeds):
        for what in options.what:
            for score in options.scores:
                key = {"what": what, "score": score, "seed": seed}
                if any({name: r[name] for name in key} == key for r in rows):
                    continue
                rows.append(key | measure_one(options, settings_of(options, what, score, seed), text, model))
                results.append(options.directory, rows[-1])
    own = measure(model, model, options.texts, options.windows, options.length)
    print(f"unpruned: {', '.join(f'{name} {value:.3f}' for name, value in own.items())}")
    print("\n".join(summary(rows)))


if __name__ == "__main__":
    main()

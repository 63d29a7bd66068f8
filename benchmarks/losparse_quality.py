"""LoSparse beside low rank alone of the same size: `python -m benchmarks.losparse_quality DIR --texts TEXTS`.

The embedded default (real weights) is trained on training.txt of `python -m benchmarks.texts TEXTS` for a number of
steps, dense, in factors and rows, and in factors alone of at least as many values (ranks are whole blocks), which get
there by the same schedule; measured on technical.txt and fiction.txt, of which nothing is in it, are perplexity and
mean KL from the model as it came. With `--heal` LoSparse's is then the student of the model as it came for as many
steps again (the paper's second half). `python -m benchmarks.losparse` says what such shares do to size and speed.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
from math import prod
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.distill import MEASURED, measure, training_text
from converters.checkpoint import Checkpoint
from edge.cli.console import open_progress, table
from edge.distill import distill
from edge.distilling.data import read_words
from edge.distilling.plan import DistillRequest, plan
from edge.sources import resolve
from quant.lowrank.names import LINEAR
from quant.prune.run import run
from quant.prune.settings import Settings
from quant.tensor_file import copy_side_files

WINDOW = 2
"""Steps from one choice of rows to the next; the runs are short."""
NAMES = tuple(f"{text} {what}" for text in MEASURED for what in ("perplexity", "KL"))


def share_of(source: Path, parameters: int) -> float:
    """What `parameters` in all leave to the values of the linear layers of the model in `source`, as a share."""
    with Checkpoint.open(source) as checkpoint:
        sizes = {name.removesuffix(".weight"): prod(info.shape) for name, info in checkpoint.tensors.items()}
    linear = sum(size for name, size in sizes.items() if name.endswith(LINEAR))
    return (parameters - sum(sizes.values()) + linear) / linear


def train(source: Path, text: Path, settings: Settings, output: Path) -> int:
    """Into the new folder `output`; the number of parameters that are left."""
    ids, _ = read_words(text, source, settings.length)
    output.mkdir()
    copy_side_files(source, output)
    progress, done = open_progress(), 0

    def report(told: Any) -> None:
        nonlocal done
        progress.advance(told.step - done)
        done = told.step

    progress.stage(output.name, settings.steps, "steps")
    name = hashlib.sha256(repr((settings, len(ids))).encode()).hexdigest()
    state = output.with_name(f".{name}.state")
    outcome = run(source, output, ids, settings, state=state, name=name, report=report)
    progress.done()
    state.unlink(missing_ok=True)
    return outcome.parameters_after


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path, help="results.jsonl there: a rerun goes on")
    parser.add_argument("--texts", type=Path, required=True, help="the folder of benchmarks.texts")
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--low-rank", type=float, default=0.5)
    parser.add_argument("--keep", type=float, default=0.2)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--rate", type=float, default=5e-5)
    parser.add_argument("--windows", type=int, default=8, help="of each text, to measure on")
    parser.add_argument("--heal", action="store_true")
    options = parser.parse_args()
    options.directory.mkdir(parents=True, exist_ok=True)
    rows = results.read(options.directory)
    source = resolve(options.model).directory
    training = {name: getattr(options, name) for name in ("steps", "batch", "length", "rate")}
    text = training_text(options.texts, options.directory, options.steps * options.batch * options.length)

    def tell(name: str, directory: Path, parameters: int | None) -> None:
        found = measure(directory, source, options.texts, options.windows, options.length)
        rows.append({"name": name, "parameters": parameters, **found})
        results.append(options.directory, rows[-1])

    if not rows:
        tell("as it came", source, None)
    trained, healed = options.directory / "trained", options.directory / "healed"
    shared: dict[str, Any] = {"units": {}, "window": WINDOW, **training}
    for name in ("dense", "LoSparse", "low rank alone"):
        known = {row["name"]: row["parameters"] for row in rows}
        if name in known:
            continue
        settings = Settings(keep=1.0, **shared)
        if name == "LoSparse":
            settings = Settings(keep=options.keep, method="losparse", low_rank=options.low_rank, **shared)
        elif name != "dense":
            share = share_of(source, known["LoSparse"])
            settings = Settings(keep=0.0, method="losparse", low_rank=share, **shared)
        shutil.rmtree(trained, ignore_errors=True)
        parameters = train(source, text, settings, trained)
        tell(name, trained, parameters)
        if options.heal and name == "LoSparse":
            request = DistillRequest(
                str(source), text, healed, method="kd", student=trained, **training | {"rate": None}
            )
            distill(plan(request), open_progress())
            tell("LoSparse, then a student", healed, parameters)
    lines = [
        [row["name"], f"{row['parameters'] / 1e6:.2f} M" if row["parameters"] else "",
         *(f"{row[what]:.3f}" for what in NAMES)]
        for row in rows
    ]  # fmt: skip
    print("\n".join(table(["what", "parameters", *NAMES], lines)))


if __name__ == "__main__":
    main()

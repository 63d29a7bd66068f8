"""TED beside FT, KD and LWD for an encoder, over seeds: `python -m benchmarks.distill_encoder DIR --task TASK`.

TASK holds train.jsonl and dev.jsonl of `python -m benchmarks.labelled TASK`. The teacher is a real encoder of six
layers (all-minilm-l6-v2 of models.lock) with a new head, fine-tuned once into DIR/teacher; a student of half its layers
learns by each method, in as many steps of stage II; measured is its share of right labels on passages of documents that
neither has seen. One line a seed and method goes into DIR/results.jsonl; a rerun makes only those that are missing; the
table gives mean and standard deviation over the seeds, of the difference from FT of the same seed too. `--device cuda
--batch 32 --length 128 --teacher-steps 3000 --steps 3000` is the size for a GPU.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch

from benchmarks import results
from benchmarks.distill import METHODS
from edge.cli.console import open_progress, table
from edge.distill import distill
from edge.distilling.data import read_labelled
from edge.distilling.plan import DistillRequest, plan
from quant.distill.models import Examples, forward, freeze, load_model

Row = dict[str, Any]


@torch.no_grad()
def accuracy(checkpoint: Path, task: Path, count: int, length: int, device: str) -> float:
    """Share of right labels on `count` evenly spaced lines of dev.jsonl."""
    model = load_model(checkpoint, "encoder").to(device)
    freeze(model)
    names = {"id2label": model.config.id2label}
    ids, labels = read_labelled(task / "dev.jsonl", checkpoint, names, length)
    kept = np.unique(np.linspace(0, len(ids) - 1, count).astype(int))
    examples = Examples(np.maximum(ids, 0), ids >= 0, labels)
    right = 0
    for part in np.array_split(kept, max(1, len(kept) // 32)):
        batch = examples.batch(part, device)
        logits, _ = forward(model, batch, ())
        right += int((logits.argmax(-1) == batch.labels).sum())
    return right / len(kept)


def few_lines(task: Path, directory: Path, count: int) -> Path:
    """`count` evenly spaced lines of train.jsonl, for a run that would read no more of them."""
    lines = (task / "train.jsonl").read_text(encoding="utf-8").splitlines()
    kept = np.unique(np.linspace(0, len(lines) - 1, min(count, len(lines))).astype(int))
    file = directory / f"train-{len(kept)}.jsonl"
    file.write_text("\n".join(lines[i] for i in kept) + "\n", encoding="utf-8")
    return file


def summary(rows: Sequence[Row]) -> list[str]:
    """A line a method: mean and standard deviation over the seeds, in percent, and of the gain over FT."""

    def told(values: Sequence[float], form: str) -> str:
        spread = f" ± {100 * stdev(values):.2f}" if len(values) > 1 else ""
        return f"{100 * mean(values):{form}}{spread}"

    tuned = {r["seed"]: r["accuracy"] for r in rows if r["method"] == "ft"}
    lines = []
    for method in METHODS:
        of_it = [r for r in rows if r["method"] == method]
        gains = [r["accuracy"] - tuned[r["seed"]] for r in of_it if r["seed"] in tuned]
        if of_it:
            cells = [told([r["accuracy"] for r in of_it], ".2f"), told(gains, "+.2f") if gains else ""]
            lines.append([method, str(len(of_it)), *cells, f"{mean(r['seconds'] for r in of_it):.0f}"])
    return table(["method", "seeds", "accuracy, %", "over FT", "seconds"], lines)


def train_teacher(options: argparse.Namespace) -> Path:
    """DIR/teacher, fine-tuned where it is not there yet."""
    directory: Path = options.directory / "teacher"
    if not directory.exists():
        request = DistillRequest(
            options.teacher,
            options.task / "train.jsonl",
            directory,
            method="ft",
            steps=options.teacher_steps,
            batch=options.teacher_batch,
            length=options.length,
            rate=options.teacher_rate,
            device=options.device,
        )
        distill(plan(request), open_progress())
    return directory


def train_student(teacher: Path, text: Path, method: Any, seed: int, options: argparse.Namespace) -> Row:
    """Train one student, measure it, and leave nothing of it."""
    request = DistillRequest(
        str(teacher),
        text,
        options.directory / f"{method}-{seed}",
        method=method,
        layers=options.layers,
        hidden=options.hidden,
        steps=options.steps,
        filter_steps=options.filter_steps,
        seed=seed,
        batch=options.batch,
        length=options.length,
        rate=options.rate,
        kl=options.kl,
        hidden_weight=options.hidden_weight,
        device=options.device,
    )
    began = time.monotonic()
    planned = plan(request)
    distill(planned, open_progress())
    seconds = time.monotonic() - began
    found = accuracy(request.output, options.task, options.count, options.length, options.device)
    shutil.rmtree(request.output)
    return {
        "method": method,
        "seed": seed,
        "accuracy": found,
        "seconds": seconds,
        "parameters": planned.student_parameters,
        "settings": planned.settings,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--task", type=Path, required=True, help="the folder of benchmarks.labelled")
    parser.add_argument("--teacher", default="all-minilm-l6-v2")
    parser.add_argument("--teacher-steps", type=int, default=200)
    parser.add_argument("--teacher-batch", type=int, default=16)
    parser.add_argument("--teacher-rate", type=float, default=1e-4)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--hidden", type=int)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--filter-steps", type=int)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=48)
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--kl", type=float)
    parser.add_argument("--hidden-weight", type=float)
    parser.add_argument("--count", type=int, default=800, help="passages to measure on")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options = parser.parse_args()
    options.directory.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = results.read(options.directory)
    teacher = train_teacher(options)
    own = accuracy(teacher, options.task, options.count, options.length, options.device)
    print(f"teacher: {100 * own:.2f} % of {options.count} passages", flush=True)
    text = few_lines(options.task, options.directory, options.steps * options.batch)
    for seed in range(options.seeds):
        for method in options.methods:
            if not any(r["seed"] == seed and r["method"] == method for r in rows):
                rows.append(train_student(teacher, text, method, seed, options))
                results.append(options.directory, rows[-1])
    print("\n".join(summary(rows)))


if __name__ == "__main__":
    main()

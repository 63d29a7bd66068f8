"""TED beside FT, KD and LWD over seeds: `python -m benchmarks.distill DIR --texts TEXTS`.

The embedded default teaches a student of half its layers (real weights, 30 -> 15) over training.txt of
`python -m benchmarks.texts TEXTS`; measured on technical.txt and fiction.txt, of which nothing is in it, are the
student's perplexity and its mean KL from the teacher. One line a seed and method goes into DIR/results.jsonl; a rerun
makes only those that are missing; the table gives mean and standard deviation over the seeds. Every method has as many
steps of stage II. `--device cuda --batch 64 --steps 20000` is the size for a GPU.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from benchmarks import results
from edge.cli.console import open_progress, table
from edge.distill import distill
from edge.distilling.data import pieces, read_words
from edge.distilling.plan import DistillRequest, plan
from edge.sources import resolve
from quant.distill.cut import plan_cut
from quant.distill.models import load_model
from quant.distill.run import write_student
from quant.distill.students import cut_student

METHODS = ("ft", "kd", "lwd", "ted")
MEASURED = ("technical", "fiction")
Row = dict[str, Any]


@torch.no_grad()
def measure(student: Path, teacher: Path, texts: Path, windows: int, length: int) -> Row:
    """Perplexity of the student and mean KL(teacher || student) in nats a token, on evenly spaced windows."""
    models = [load_model(d, "decoder").eval() for d in (teacher, student)]
    found: Row = {}
    for name in MEASURED:
        ids, _ = read_words(texts / f"{name}.txt", teacher, length)
        losses, divergences = [], []
        for i in np.linspace(0, len(ids) - 1, windows).astype(int):
            batch = torch.from_numpy(ids[i : i + 1])
            t, s = (functional.log_softmax(m(input_ids=batch).logits[0, :-1], -1) for m in models)
            losses.append(functional.nll_loss(s, batch[0, 1:]).item())
            divergences.append(functional.kl_div(s, t, reduction="batchmean", log_target=True).item())
        found[f"{name} perplexity"] = math.exp(mean(losses))
        found[f"{name} KL"] = mean(divergences)
    return found


def training_text(texts: Path, directory: Path, tokens: int) -> Path:
    """training.txt, or as many evenly spaced pieces of it as hold about twice `tokens`."""
    whole = list(pieces((texts / "training.txt").read_text(encoding="utf-8"), 20_000))
    count = min(len(whole), 1 + 2 * tokens * 5 // 20_000)
    file = directory / "text.txt"
    file.write_text(
        "".join(whole[i] for i in np.linspace(0, len(whole) - 1, count).astype(int)), encoding="utf-8"
    )
    return file


def measure_one(request: DistillRequest, texts: Path, windows: int) -> Row:
    """Train one student, measure it, and leave nothing of it."""
    began = time.monotonic()
    planned = plan(request)
    distill(planned, open_progress())
    seconds = time.monotonic() - began
    row = measure(request.output, planned.directory, texts, windows, int(planned.ids.shape[1]))
    shutil.rmtree(request.output)
    return {"settings": planned.settings, "parameters": planned.student_parameters, "seconds": seconds} | row


def measure_cut(teacher: Path, work: Path, texts: Path, options: argparse.Namespace) -> Row:
    """What every student begins as, measured before any training."""
    config = json.loads((teacher / "config.json").read_text(encoding="utf-8"))
    cut = plan_cut(config, "decoder", options.layers, options.hidden, options.keep)
    write_student(cut_student(load_model(teacher, "decoder"), "decoder", cut), work)
    row = measure(work, teacher, texts, options.windows, options.length)
    shutil.rmtree(work)
    return row


def told(row: Row) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in row.items())


def summary(rows: Sequence[Row]) -> list[str]:
    """Mean and standard deviation over the seeds of each method, as lines."""
    names = [f"{text} {what}" for text in MEASURED for what in ("perplexity", "KL")]
    lines = []
    for method in METHODS:
        of_it = [r for r in rows if r["method"] == method]
        if not of_it:
            continue
        cells = []
        for name in names:
            values = [r[name] for r in of_it]
            spread = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
            cells.append(f"{mean(values):.3f}{spread}")
        lines.append([method, str(len(of_it)), *cells, f"{mean(r['seconds'] for r in of_it):.0f}"])
    return table(["method", "seeds", *names, "seconds"], lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--texts", type=Path, required=True, help="the folder of benchmarks.texts")
    parser.add_argument("--teacher", default="smollm2-135m-instruct")
    parser.add_argument("--layers", type=int, default=15)
    parser.add_argument("--hidden", type=int)
    parser.add_argument("--keep", choices=("ends", "even"))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--filter-steps", type=int)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--windows", type=int, default=16, help="of each text, to measure on")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options = parser.parse_args()
    options.directory.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = results.read(options.directory)
    teacher = resolve(options.teacher).directory
    text = training_text(options.texts, options.directory, options.steps * options.batch * options.length)
    for seed in range(options.seeds):
        for method in options.methods:
            if any(r["seed"] == seed and r["method"] == method for r in rows):
                continue
            request = DistillRequest(
                options.teacher,
                text,
                options.directory / f"{method}-{seed}",
                method=method,
                layers=options.layers,
                hidden=options.hidden,
                keep=options.keep,
                steps=options.steps,
                filter_steps=options.filter_steps,
                seed=seed,
                batch=options.batch,
                length=options.length,
                rate=options.rate,
                bf16=options.bf16,
                device=options.device,
            )
            rows.append(
                {"method": method, "seed": seed, **measure_one(request, options.texts, options.windows)}
            )
            results.append(options.directory, rows[-1])
    print(f"teacher: {told(measure(teacher, teacher, options.texts, options.windows, options.length))}")
    print(f"cut: {told(measure_cut(teacher, options.directory / 'cut', options.texts, options))}")
    print("\n".join(summary(rows)))


if __name__ == "__main__":
    main()

"""Size, speed and fidelity of variants of one model: `python -m benchmarks.pareto DIR --texts TEXTS`.

Each variant of the embedded default is a plan of `edge shrink` (VARIANTS, or those of --plans FILE): conversions, and
pruned, distilled and healed students. Of each are measured: the bytes of its artifact and adapter; the mean KL of its
predictions from those of the float checkpoint over technical.txt of `python -m benchmarks.texts TEXTS`, of which
nothing is in the text that students learn from; and tokens decoded a second, as a ratio to the first variant's, the
two in turns. One line a variant goes into DIR/results.jsonl; a rerun makes those that are missing. At the end stand
the table and two charts, DIR/size.svg and DIR/speed.svg, with the Pareto front marked.
"""

from __future__ import annotations

import argparse
import time
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import results
from benchmarks.distill import training_text
from benchmarks.pareto_measures import Row, Subject, decode_ratios, reference_of
from benchmarks.pareto_measures import divergences as divergences_of
from edge.charts import Dot, front, scatter_chart
from edge.cli.console import open_progress, table
from edge.shrink import ShrinkPlan, Step, shrink

Plan = Sequence[Mapping[str, Any]]
STUDENT = {"batch": 4, "length": 128, "bf16": True}
INT4 = {"do": "convert", "precision": "int4"}


def variants(steps: int) -> dict[str, Plan]:
    """By name the steps of a plan, all of one target. steps: of training, where there is any."""
    halved = {"do": "distill", "layers": 15, "keep": "ends", "steps": steps, **STUDENT}
    return {
        "float16": [{"do": "convert", "precision": "f16"}],
        "int8": [{"do": "convert", "precision": "int8"}],
        "int4": [INT4],
        "int4 calibrated": [{**INT4, "calibrate": True}],
        "4.5 bits": [{"do": "convert", "bits_per_weight": 4.5}],
        "6 bits": [{"do": "convert", "bits_per_weight": 6.0}],
        "int4 healed": [{"do": "heal", "method": "loftq", "target": "android"}, INT4],
        "3/4 of neurons, int4": [{"do": "prune", "neurons": 0.75, "steps": steps, **STUDENT}, INT4],
        "24 layers, int4": [{**halved, "layers": 24, "filter_steps": max(1, steps // 4)}, INT4],
        "15 layers, int8": [{**halved, "filter_steps": max(1, steps // 4)}, {**INT4, "precision": "int8"}],
    }


def make(options: argparse.Namespace, name: str, plan: Plan, text: Path) -> Subject:
    """The variant's artifact, made by `edge shrink` where it is missing."""
    steps = []
    for table_ in plan:
        settings = {key: value for key, value in table_.items() if key != "do"}
        if table_["do"] == "convert":
            settings |= {"targets": [options.target], "proof": False}
        steps.append(Step(table_["do"], settings))
    place = options.directory / name.replace(" ", "-").replace("/", "of").replace(",", "")
    trains = any(step.kind in ("prune", "distill") for step in steps)
    *_, bundle = shrink(
        ShrinkPlan(options.model, text if trains else None, tuple(steps)), place, open_progress(quiet=False)
    )
    return Subject.of(name, bundle)


def add(options: argparse.Namespace, rows: list[Row], plans: Mapping[str, Plan]) -> None:
    """Make and measure what is missing; the first variant is kept for the others to be timed beside."""
    text = training_text(options.texts, options.directory, options.steps * 4 * 128)
    first = make(options, next(iter(plans)), next(iter(plans.values())), text)
    missing = {name: plan for name, plan in plans.items() if name not in {r["name"] for r in rows}}
    if not missing:
        return
    reference = reference_of(options.model, options.texts / "technical.txt", options.windows, options.length)
    for name, plan in missing.items():
        began = time.monotonic()
        subject = make(options, name, plan, text)
        made = time.monotonic() - began
        kl = divergences_of(subject, reference, options.threads)
        ratios = decode_ratios(subject, first, options)
        rows.append(
            {
                "name": name,
                "bytes": subject.nbytes,
                "kl": [kl.value, kl.error],
                "speed": [median(ratios), min(ratios), max(ratios)],
                "plan": [dict(step) for step in plan],
                "made_s": round(made),
                "windows": options.windows,
            }
        )
        results.append(options.directory, rows[-1])


def lines(rows: Sequence[Row], kept: Sequence[bool]) -> list[str]:
    """The table, smallest first."""
    cells = [
        [
            row["name"],
            f"{row['bytes'] / 1e6:.1f}",
            "{:.2f} ({:.2f} to {:.2f})".format(*row["speed"]),
            "{:.4f} ± {:.4f}".format(*row["kl"]),
            "yes" if on else "",
        ]
        for row, on in zip(rows, kept, strict=True)
    ]
    order = sorted(range(len(rows)), key=lambda i: rows[i]["bytes"])
    return table(["variant", "MB", "speed", "mean KL (nats)", "front of three"], [cells[i] for i in order])


def charts(rows: Sequence[Row]) -> dict[str, str]:
    """By file name."""

    def dots(x: str) -> list[Dot]:
        return [
            Dot(
                r["name"],
                {"size": r["bytes"] / 1e6, "speed": r["speed"][0]}[x],
                r["kl"][0],
                f"{r['bytes'] / 1e6:.1f} MB, {r['speed'][0]:.2f} x {rows[0]['name']}",
            )
            for r in rows
        ]

    axes = {"y_label": "mean KL from the float checkpoint (nats)", "log_y": True}
    speed = f"decoding speed, {rows[0]['name']} = 1"
    return {
        "size.svg": scatter_chart(dots("size"), title="Fidelity over size", x_label="MB", **axes),
        "speed.svg": scatter_chart(
            dots("speed"), title="Fidelity over speed", x_label=speed, more_x=True, **axes
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path)
    parser.add_argument("--texts", type=Path, required=True, help="the folder of benchmarks.texts")
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--target", default="android")
    parser.add_argument("--plans", type=Path, help='TOML: ["a variant"] and its [["a variant".step]]')
    parser.add_argument("--only", nargs="+", help="variants by name; the first is what speed is a ratio to")
    parser.add_argument("--steps", type=int, default=60, help="of the students' training")
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=48, help="to decode in each timed run")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    options.directory.mkdir(parents=True, exist_ok=True)
    plans = variants(options.steps)
    if options.plans:
        plans = {name: plan["step"] for name, plan in tomllib.loads(options.plans.read_text("utf-8")).items()}
    plans = {name: plans[name] for name in options.only or plans}
    rows = results.read(options.directory)
    add(options, rows, plans)
    print("\n".join(lines(rows, front([(r["bytes"], -r["speed"][0], r["kl"][0]) for r in rows]))))
    for name, svg in charts(rows).items():
        (options.directory / name).write_text(svg + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""What an encoder's bundle is right about, and how fast: `python -m benchmarks.classify BUNDLE --task TASK`.

A line for each graph of the bundle: its size, the share of right labels on passages of TASK/dev.jsonl
(`python -m benchmarks.labelled TASK`), the share of labels that it has in common with the float graph, and the median
milliseconds a passage, one at a time on one thread.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median

import numpy as np

from edge.bundle import load
from edge.cli.console import table
from edge.encoder.session import open_classifier


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--task", type=Path, required=True, help="the folder of benchmarks.labelled")
    parser.add_argument("--count", type=int, default=400, help="passages, evenly spaced")
    options = parser.parse_args()
    lines = (options.task / "dev.jsonl").read_text(encoding="utf-8").splitlines()
    kept = np.unique(np.linspace(0, len(lines) - 1, options.count).astype(int))
    rows = [json.loads(lines[i]) for i in kept]
    found: dict[str, list[str]] = {}
    cells = []
    for variant in load(options.bundle).variants:
        classifier = open_classifier(options.bundle, variant.precision, threads=1)
        seconds, said = [], []
        for row in rows:
            began = time.perf_counter()
            best = int(classifier.probabilities([row["text"]])[0].argmax())
            seconds.append(time.perf_counter() - began)
            said.append(classifier.labels[best])
        found[variant.precision] = said
        right = np.mean([a == row["label"] for a, row in zip(said, rows, strict=True)])
        same = [a == b for a, b in zip(said, found["f32"], strict=True)] if "f32" in found else []
        size = sum(file.stat().st_size for file in variant.path.iterdir())
        agreement = f"{100 * np.mean(same):.2f}" if same else ""
        cells.append(
            [
                variant.name,
                f"{size / 1e6:.1f}",
                f"{100 * right:.2f}",
                agreement,
                f"{1000 * median(seconds):.1f}",
            ]
        )
    header = ["graph", "MB", f"right of {len(rows)}, %", "as f32, %", "ms a passage"]
    print("\n".join(table(header, cells)))


if __name__ == "__main__":
    main()

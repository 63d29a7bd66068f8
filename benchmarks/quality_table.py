"""The results of benchmarks/quality.py as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

Row = dict[str, Any]
_TITLES = {
    "linear": "linear layers alone (embedding, output and norms float32)",
    "file": "whole files, as each tool writes them",
}
_COLUMNS = ("KL mean", "median", "p99", "perplexity", "top-1 %")


def table(results: list[Row], models: Sequence[str], texts: Sequence[str]) -> str:
    """One table for every model and scope, fewest bits first; the mean KL with its standard error.

    Tests that are no texts are tasks, and stand with their accuracy in percent.
    """
    tasks = sorted({r["test"] for r in results} - set(texts))
    sections = []
    for model in models:
        for scope, title in _TITLES.items():
            rows = [r for r in results if r["model"] == model and r["scope"] == scope]
            if rows:
                sections.append("\n".join([f"### {model}: {title}", "", *_lines(rows, texts, tasks)]))
    return "\n\n".join(sections)


def _lines(rows: list[Row], texts: Sequence[str], tasks: Sequence[str]) -> Iterator[str]:
    found = {(r["contender"], r["test"]): r for r in rows}
    makers = {r["contender"]: r for r in rows}
    heads = ["contender", "bits", "MB"]
    heads += [
        f"{text}: {column}" if column == _COLUMNS[0] else column for text in texts for column in _COLUMNS
    ]
    heads += [f"{task} %" for task in tasks]
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    for name in sorted(makers, key=lambda n: (makers[n]["file_bytes"] or makers[n]["linear_bits"] or 0, n)):
        bits, size = makers[name]["linear_bits"], makers[name]["file_bytes"]
        cells = [name, f"{bits:.2f}" if bits else "-", f"{size / 1e6:.1f}" if size else "-"]
        for text in texts:
            cells += _predictions(found.get((name, text)))
        for task in tasks:
            row = found.get((name, task))
            cells.append(_percent(row["accuracy"]) if row else "-")
        yield f"| {' | '.join(cells)} |"
    floats = {r["test"]: r["reference_perplexity"][0] for r in rows if "reference_perplexity" in r}
    yield ""
    yield (
        "Perplexity of the float model: " + ", ".join(f"{t} {p:.2f}" for t, p in sorted(floats.items())) + "."
    )


def _predictions(row: Row | None) -> list[str]:
    if row is None:
        return ["-"] * len(_COLUMNS)
    mean, error = row["kl_mean"]
    return [
        f"{mean:.4f} ± {error:.4f}",
        f"{row['kl_median'][0]:.4f}",
        f"{row['kl_p99'][0]:.3f}",
        f"{row['perplexity'][0]:.2f}",
        f"{100 * row['top1'][0]:.1f}",
    ]


def _percent(estimate: Sequence[float]) -> str:
    value, error = estimate
    return f"{100 * value:.1f} ± {100 * error:.1f}"

"""The results of benchmarks/quality.py as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

_TITLES = {
    "linear": "Linear layers alone (embedding, output and norms float32)",
    "file": "Whole files, as each tool writes them",
}


def table(results: list[dict[str, Any]], models: Sequence[str], texts: Sequence[str], windows: int) -> str:
    """One table for every model and scope, smallest first; KL and perplexity with standard errors."""
    rows = [r for r in results if r["windows"] == windows]
    return "\n\n".join(
        "\n".join(_section(rows, model, scope, texts))
        for model in models
        for scope in _TITLES
        if any(r["model"] == model and r["scope"] == scope for r in rows)
    )


def _section(rows: list[dict[str, Any]], model: str, scope: str, texts: Sequence[str]) -> Iterator[str]:
    mine = [r for r in rows if r["model"] == model and r["scope"] == scope]
    found = {(r["contender"], r["text"]): r for r in mine}
    names = sorted({r["contender"] for r in mine}, key=lambda n: _order(mine, n))
    yield f"### {model}: {_TITLES[scope]}"
    yield ""
    heads = [f"{t}: KL mean | median | p99 | perplexity | top-1 %" for t in texts]
    yield "| contender | bits | MB | " + " | ".join(heads) + " |"
    yield "|---" * (3 + 5 * len(texts)) + "|"
    for name in names:
        any_row = next(r for r in mine if r["contender"] == name)
        bits, size = any_row["linear_bits"], any_row["file_bytes"]
        cells = [name, f"{bits:.2f}" if bits else "-", f"{size / 1e6:.1f}" if size else "-"]
        for text in texts:
            cells += _cells(found.get((name, text)))
        yield "| " + " | ".join(cells) + " |"
    references = [
        f"{t} {found[key]['reference_perplexity'][0]:.2f}" for t in texts if (key := (names[0], t)) in found
    ]
    yield ""
    yield f"Perplexity of the float model: {', '.join(references)}."


def _order(rows: list[dict[str, Any]], name: str) -> tuple[float, str]:
    row = next(r for r in rows if r["contender"] == name)
    return (row["file_bytes"] or row["linear_bits"] or 0.0, name)


def _cells(row: dict[str, Any] | None) -> list[str]:
    if row is None:
        return ["-"] * 5
    mean, error = row["kl_mean"]
    return [
        f"{mean:.4f} ± {error:.4f}",
        f"{row['kl_median'][0]:.4f}",
        f"{row['kl_p99'][0]:.3f}",
        f"{row['perplexity'][0]:.2f}",
        f"{100 * row['top1'][0]:.1f}",
    ]

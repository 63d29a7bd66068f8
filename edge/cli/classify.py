"""`edge classify`: text in, label out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from edge.cli import console


def classify(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Bundle of an encoder that classifies.")],
    texts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TEXT]...", help="Texts. Without any: the lines of stdin.", show_default=False
        ),
    ] = None,
    precision: Annotated[
        Literal["f32", "int8"] | None,
        typer.Option(help="Of the bundle's graphs. [default: int8 where it is]"),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, metavar="N", help="Threads of the engine.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Every label's probability, as JSON on stdout.")
    ] = False,
) -> None:
    """Say which label each text has, by a bundle of an encoder.

    A line a text: the label and its probability, a tab between. Such a bundle is what `edge convert` makes of a
    checkpoint with a classification head.
    """
    from edge.encoder.session import open_classifier

    opened = open_classifier(bundle, precision, threads)
    lines = texts or [line.rstrip("\n") for line in sys.stdin if line.strip()]
    found = opened.probabilities(lines)
    if as_json:
        rows = [dict(zip(opened.labels, map(float, row), strict=True)) for row in found]
        console.write_json([{"text": text, "labels": row} for text, row in zip(lines, rows, strict=True)])
        return
    for row in found:
        best = int(row.argmax())
        console.write(f"{console.clean(opened.labels[best])}\t{row[best]:.3f}")

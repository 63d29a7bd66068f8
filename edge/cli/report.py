"""`edge report`: what a bundle is, on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge.cli import complete, console


def report(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Bundle directory.")],
    against: Annotated[
        str | None,
        typer.Option(
            metavar="CHECKPOINT",
            help="Checkpoint, or its name in models.lock: shows what was lost, where, and in which words.",
            autocompletion=complete.models,
        ),
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", exists=True, dir_okay=False, help="UTF-8 text to predict. [default: the proof's]"
        ),
    ] = None,
    windows: Annotated[
        int, typer.Option(min=1, metavar="N", help="At most so many windows of 512 tokens of it.")
    ] = 8,
    bench: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="Result of `edge bench --json`; repeat for several.",
        ),
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Measure the speed now, as `edge bench` does.")
    ] = False,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The page to write.")] = Path(
        "report.html"
    ),
    threads: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="The engines' threads. [default: every core]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The figures as JSON on stdout too.")] = False,
) -> None:
    """Show a bundle on one HTML page: size, errors, words, speed.

    The page holds everything and fetches nothing. Without --against it is made from the bundle's files alone.
    """
    from edge.report import Request, gather
    from edge.reporting.page import render

    progress = console.open_progress(quiet=as_json)
    request = Request(bundle, against, text, windows, tuple(bench or ()), measure, threads)
    found = gather(request, progress)
    output.write_text(render(found), encoding="utf-8")
    if as_json:
        console.write_json(found.to_data())
    else:
        console.write(str(output))

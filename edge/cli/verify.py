"""`edge verify`: is a bundle what its manifest says?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge.cli import complete, console


def verify(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Bundle directory.")],
    against: Annotated[
        str | None,
        typer.Option(
            metavar="CHECKPOINT",
            help="Checkpoint, or its name in models.lock: prove the numbers anew.",
            autocompletion=complete.models,
        ),
    ] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(metavar="[NAME=]DIR", help="With --against: an adapter that it was made with."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Result as JSON on stdout.")] = False,
) -> None:
    """Check a bundle's files, and its numbers against a checkpoint.

    Exit code 1 when a file is missing, altered or foreign; 3 when the files are whole and the proof fails.
    """
    from converters.errors import BundleError, ProofError
    from edge.verification import verify as run

    progress = console.open_progress(quiet=as_json)
    found = run(bundle, against, progress, adapters=tuple(adapter or ()))
    if as_json:
        console.write_json(found.to_data())
    elif found.ok:
        console.write(f"{bundle}: {found.files} files are whole; its proof when it was made: {found.claimed}")
    else:
        for line in found.damage:
            console.write(line)
    if not as_json:
        for line in console.proof_lines(found.proof) if found.proof else ():
            console.write(line)
        if found.unproven_adapters:
            console.say(
                f"note: adapters not proven anew: {', '.join(found.unproven_adapters)}; --adapter NAME=DIR does it"
            )
    if found.damage:
        raise BundleError(
            f"{bundle} is not what its manifest says: {found.damage[0]}"
            + (f" (and {len(found.damage) - 1} more)" if len(found.damage) > 1 else ""),
            hint="make it again with `edge convert`, or copy it again from where it came",
        )
    if not found.ok:
        raise ProofError(
            f"the files of {bundle} are whole, but the proof against {against} fails",
            hint="check that this is the checkpoint it was made of: `edge inspect` shows the source",
        )

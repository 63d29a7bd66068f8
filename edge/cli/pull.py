"""`edge pull`: fetch models and verify them."""

from __future__ import annotations

from typing import Annotated

import typer

from edge.cli import complete, console


def pull(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME",
            help="Names in models.lock, or sources such as hf:owner/name.",
            autocompletion=complete.models,
        ),
    ],
    locked: Annotated[
        bool, typer.Option("--locked", help="Fail if `edge lock` would change the lock.")
    ] = False,
    frozen: Annotated[bool, typer.Option("--frozen", help="Take the lock as it is; ask no source.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Result as JSON on stdout.")] = False,
) -> None:
    """Download models of models.lock and verify every byte.

    Prints the checkpoint directory of each. What is there already is verified and not fetched again; a broken
    download continues where it stopped.
    """
    from edge.sources import resolve

    progress = console.open_progress(quiet=as_json)
    found = [resolve(name, locked=locked, frozen=frozen, progress=progress) for name in names]
    if not as_json:
        for model in found:
            console.write(str(model.directory))
        return
    console.write_json(
        [
            {
                "name": model.name,
                "directory": str(model.directory),
                "source": model.source,
                "licence": model.licence,
                "files": {f.path: {"size": f.size, "sha256": f.sha256} for f in model.files},
            }
            for model in found
        ]
    )

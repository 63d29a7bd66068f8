"""`edge pull`: fetch a model and verify it."""

from __future__ import annotations

from typing import Annotated

import typer


def pull(
    name: Annotated[str, typer.Argument(help="A name in models.lock, or a source such as hf:owner/name.")],
    locked: Annotated[bool, typer.Option("--locked", help="Fail if `edge lock` would change the lock.")] = False,
    frozen: Annotated[bool, typer.Option("--frozen", help="Take the lock as it is; ask no source.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Result as JSON on stdout.")] = False,
) -> None:
    """Fetch a locked model, verify every byte, and print the checkpoint's directory."""
    from edge.cli import console
    from edge.sources import resolve

    resolved = resolve(name, locked=locked, frozen=frozen, progress=console.open_progress(quiet=as_json))
    if as_json:
        console.write_json(
            {
                "name": resolved.name,
                "directory": str(resolved.directory),
                "source": resolved.source,
                "licence": resolved.licence,
                "files": {f.path: {"size": f.size, "sha256": f.sha256} for f in resolved.files},
            }
        )
    else:
        console.write(str(resolved.directory))

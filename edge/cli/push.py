"""`edge push`: a model goes to a phone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge.cli import console


def push(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Bundle directory, or a GGUF file.")],
    serial: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which phone, as `adb devices` names it.")
    ] = None,
    variant: Annotated[
        str | None, typer.Option(metavar="NAME", help="Variant of the bundle. [default: its first GGUF]")
    ] = None,
    app: Annotated[
        str | None,
        typer.Option(metavar="ID", help="The app's --id of `edge package`. [default: dev.edge.app]"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Result as JSON on stdout.")] = False,
) -> None:
    """Bring a model to a phone, into the app's own folder.

    Needs adb, and the app of `edge package` on the phone. Checks the free space first, continues where an earlier
    run broke off, and compares the SHA-256 that the phone computes.
    """
    from edge.packaging.push import push as run

    progress = console.open_progress(quiet=as_json)
    report = run(model, variant, serial, app, progress)
    progress.done()
    if as_json:
        console.write_json(report.to_data())
        return
    if report.resumed == report.bytes:
        console.say(f"{report.model} is on {report.serial} already, and whole")
    else:
        before = f", {console.size(report.resumed)} lay there already" if report.resumed else ""
        console.say(f"{report.model} is on {report.serial}: sent {console.size(report.sent)}{before}")
    console.write(report.path)

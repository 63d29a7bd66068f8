"""`edge package`: a bundle becomes an app."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from edge.cli import console


def package(
    bundle: Annotated[
        Path, typer.Argument(metavar="BUNDLE", help="Bundle directory with a GGUF variant, or a GGUF file.")
    ],
    app: Annotated[Literal["android"], typer.Option("--app", help="Which app.")] = "android",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="The app. [default: NAME.apk]")
    ] = None,
    variant: Annotated[
        str | None, typer.Option(metavar="NAME", help="Variant of the bundle. [default: its first GGUF]")
    ] = None,
    embed: Annotated[
        Literal["auto", "always", "never"],
        typer.Option(help="Put the model into the APK; auto: up to 160 MB. Else `edge push` brings it."),
    ] = "auto",
    keystore: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Sign with a key of your own. [default: a debug key]"),
    ] = None,
    key_alias: Annotated[
        str | None, typer.Option("--key-alias", metavar="NAME", help="Which key of the keystore.")
    ] = None,
    password_file: Annotated[
        Path | None,
        typer.Option(
            "--password-file", metavar="FILE", help="Its password. [default: from EDGE_KEYSTORE_PASSWORD]"
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Result as JSON on stdout.")] = False,
) -> None:
    """Make an app of a bundle: a signed APK for arm64 phones.

    It runs the model on the phone itself and asks for no permission. Built from pinned parts, fetched once, and
    Debian's tools; the same bundle and key give the same bytes.
    """
    from edge.packaging.android import Request
    from edge.packaging.android import package as run

    progress = console.open_progress(quiet=as_json)
    request = Request(
        model=bundle,
        output=output or Path(f"{bundle.resolve().stem if bundle.is_file() else bundle.resolve().name}.apk"),
        variant=variant,
        embed=embed,
        keystore=keystore,
        key_alias=key_alias,
        password_file=password_file,
    )
    report = run(request, progress)
    progress.done()
    if as_json:
        console.write_json(report.to_data())
        return
    parts = ", ".join(f"{name} {console.size(count)}" for name, count in report.sizes.items() if count)
    console.say(f"{report.package} {report.version}, {report.model}: {console.size(report.bytes)} ({parts})")
    console.say(f"signed and verified, certificate SHA-256 {report.certificate}")
    for note in report.notes:
        console.say(f"note: {note}")
    console.write(str(report.output))

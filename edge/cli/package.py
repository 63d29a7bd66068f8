"""`edge package`: a bundle becomes an app."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from edge.cli import console

if TYPE_CHECKING:
    from edge.packaging.packaged import Packaged
    from edge.progress import Progress


def package(
    bundle: Annotated[
        Path, typer.Argument(metavar="BUNDLE", help="Bundle directory with a GGUF variant, or a GGUF file.")
    ],
    app: Annotated[
        Literal["android", "web", "ios"],
        typer.Option(
            "--app", help="android: a signed APK. web: a folder for any web server. ios: an Xcode project."
        ),
    ] = "android",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="PATH", help="The app. [default: NAME.apk, NAME-web, NAME-ios]"
        ),
    ] = None,
    variant: Annotated[
        str | None, typer.Option(metavar="NAME", help="Variant of the bundle. [default: its first GGUF]")
    ] = None,
    embed: Annotated[
        Literal["auto", "always", "never"],
        typer.Option(help="Put the model into the APK; auto: up to 160 MB. Else `edge push` brings it."),
    ] = "auto",
    app_id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="Application id. [default: dev.edge.app]")
    ] = None,
    title: Annotated[str | None, typer.Option(metavar="TEXT", help="Name under the icon.")] = None,
    app_version: Annotated[
        str | None, typer.Option("--app-version", metavar="X.Y.Z", help="Version. [default: edge's]")
    ] = None,
    icon: Annotated[Path | None, typer.Option(metavar="FILE", help="Icon: a square picture.")] = None,
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
    """Make an app of a bundle, for Android, browsers or Xcode.

    Android's asks for no permission; the same bundle and key give the same bytes. The web app chats without a network
    after the first visit. All run the model on the device itself and are built from pinned parts, fetched once.
    """
    progress = console.open_progress(quiet=as_json)
    name = bundle.resolve().stem if bundle.is_file() else bundle.resolve().name
    if app != "android":
        for option, value in (
            ("--id", app_id),
            ("--title", title),
            ("--app-version", app_version),
            ("--icon", icon),
            ("--keystore", keystore),
            ("--key-alias", key_alias),
            ("--password-file", password_file),
        ):
            if value is not None:
                raise typer.BadParameter(f"{option} is for --app android")
        _package_folder(app, bundle, output or Path(f"{name}-{app}"), variant, progress, as_json=as_json)
        return
    from edge.packaging.android import Request
    from edge.packaging.android import package as run
    from edge.packaging.identity import Identity

    request = Request(
        model=bundle,
        output=output or Path(f"{name}.apk"),
        identity=Identity(app_id, title, app_version, icon),
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


def _package_folder(
    app: str, bundle: Path, output: Path, variant: str | None, progress: Progress, *, as_json: bool
) -> None:
    """Run `edge.packaging.<app>`, which makes a folder."""
    packaged: Packaged = import_module(f"edge.packaging.{app}").package(bundle, output, variant, progress)
    progress.done()
    if as_json:
        console.write_json(packaged.to_data())
        return
    parts = ", ".join(f"{name} {console.size(count)}" for name, count in packaged.parts.items())
    console.say(f"{console.size(packaged.total)} ({parts})")
    for note in packaged.notes:
        console.say(f"note: {note}")
    console.write(str(packaged.output))

"""A bundle becomes a signed APK: compile, pack, align, sign, check, publish."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from edge.packaging import (
    apk,
    dex,
    elf,
    manifest_lint,
    native,
    parts,
    phone_model,
    publishing,
    signing,
    tools,
)
from edge.packaging.apk import Entry
from edge.packaging.identity import EDGE, Identity
from edge.progress import Progress
from edge.units import size as readable

APP = Path(__file__).parents[1] / "apps" / "android"
MANIFEST = APP / "AndroidManifest.xml"
EMBED_BYTES = 160_000_000
"""A model up to this size goes into the APK: with the libraries and the page (about 13 MB) it stays under the 200 MB
that Google Play takes, and a phone keeps a second copy of it, for llama.cpp maps a plain file."""
_LIBRARIES = "package/android/src/main/jniLibs/arm64-v8a"
_LICENCES = {"llama.rn.txt": "package/LICENSE", "llama.cpp.txt": "package/cpp/LICENSE"}

Embed = Literal["auto", "always", "never"]


@dataclass(frozen=True)
class Request:
    """`model`: a bundle or a GGUF file. No `keystore`: this machine's debug key."""

    model: Path
    output: Path
    identity: Identity = EDGE
    variant: str | None = None
    embed: Embed = "auto"
    keystore: Path | None = None
    key_alias: str | None = None
    password_file: Path | None = None


@dataclass(frozen=True)
class Report:
    """`sizes`: bytes in the APK by part; `certificate`: SHA-256 of the signer's; `notes`: what a person should know."""

    output: Path
    package: str
    version: str
    model: str
    embedded: bool
    bytes: int
    sizes: dict[str, int]
    libraries: dict[str, list[str]]
    certificate: str
    debug_key: bool
    notes: list[str] = field(default_factory=list)

    def to_data(self) -> dict[str, Any]:
        return {**vars(self), "output": str(self.output)}


def package(request: Request, progress: Progress) -> Report:
    """Build and check the app of a model, and publish it whole or not at all.

    Raises PackageError where tools are missing or a check fails, and what `phone_model.load`, `signing.own_key` and
    `parts.fetch` raise.
    """
    who = request.identity
    who.check()
    found = tools.find()
    name = who.id or manifest_lint.package_of(MANIFEST)
    if request.keystore:
        key = signing.own_key(found, request.keystore, request.key_alias, request.password_file)
    else:
        key = signing.debug_key(found)
    progress.stage(f"check {request.model.name}", phone_model.size(request.model))
    model = phone_model.load(request.model, request.variant, progress.advance)
    embedded = request.embed == "always" or (request.embed == "auto" and model.size <= EMBED_BYTES)
    with publishing.work_folder(request.output) as folder:
        work = folder / "work"
        work.mkdir()
        libraries = _libraries(work, progress)
        entries = [
            *_code(found, who, work, progress),
            *_files(APP / "www", "assets/www"),
            *_licences(progress),
        ]
        entries += [Entry(f"lib/{manifest_lint.ABI}/{file.name}", file) for file in libraries]
        if embedded:
            entries += [
                Entry("assets/model.json", model.json),
                Entry(f"assets/{phone_model.FILE}", model.gguf),
            ]
            entries += [Entry(f"assets/licences/model-{file.name}", file) for file in _texts(request.model)]
        unsigned, signed = work / "unsigned.apk", folder / request.output.name
        progress.stage(f"write {request.output.name}", sum(entry.size for entry in entries))
        apk.write(unsigned, entries, progress.advance)
        progress.stage("sign and verify")
        signing.sign(found, key, unsigned, signed, manifest_lint.MIN_SDK)
        certificate = signing.verify(found, signed)
        apk.align_check(found, signed)
        manifest_lint.check_badging(found, signed, name, who.version_name())
        report = Report(
            output=request.output,
            package=name,
            version=who.version_name(),
            model=model.id,
            embedded=embedded,
            bytes=signed.stat().st_size,
            sizes=apk.sizes(signed),
            libraries={file.name: list(elf.read(file).needed) for file in libraries},
            certificate=certificate,
            debug_key=key.debug,
            notes=_notes(request, signed.stat().st_size, embedded=embedded, debug=key.debug),
        )
        shutil.rmtree(work)
    progress.done()
    return report


def _libraries(work: Path, progress: Progress) -> list[Path]:
    """The app's own library and llama.cpp's for each kind of CPU, each checked."""
    llama, zig = parts.fetch("llama.rn", progress), parts.fetch("zig", progress)
    progress.stage("compile C")
    own = native.build(work, llama / "package", zig / "ziglang" / "zig")
    libraries = [own, *sorted((llama / _LIBRARIES).glob("*.so"))]
    for file in libraries:
        elf.check(file)
    return libraries


def _code(found: tools.Tools, who: Identity, work: Path, progress: Progress) -> list[Entry]:
    """The manifest and resources, and classes.dex."""
    dx = parts.fetch("dx", progress)
    progress.stage("compile Java")
    classes = dex.build(found, dx, APP / "stubs", (APP / "java" / "core", APP / "java" / "app"), work)
    compiled = apk.compile_resources(found, MANIFEST, who.resources(APP / "res", work), work, who)
    return [*compiled, Entry("classes.dex", classes)]


def _files(folder: Path, name: str) -> Iterator[Entry]:
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            yield Entry(f"{name}/{file.relative_to(folder).as_posix()}", file)


def _licences(progress: Progress) -> Iterator[Entry]:
    llama = parts.fetch("llama.rn", progress)
    for name, path in _LICENCES.items():
        yield Entry(f"assets/licences/{name}", llama / path)


def _texts(model: Path) -> list[Path]:
    """A bundle's licence texts, which go where its weights go."""
    return [file for name in ("LICENSE", "NOTICE") if (file := model / name).is_file()]


def _notes(request: Request, size: int, *, embedded: bool, debug: bool) -> list[str]:
    notes = [f"`adb install -r {request.output}` puts it on a phone"]
    if not embedded:
        app = f" --app {request.identity.id}" if request.identity.id else ""
        notes.append(f"the model is not in the APK: `edge push {request.model}{app}` brings it to a phone")
    if size > apk.STORE_BYTES:
        notes.append(
            f"over {readable(apk.STORE_BYTES)}, which is all that Google Play takes; `adb install` takes it"
        )
    if debug:
        notes.append(
            "signed with this machine's debug key, which no store takes; --keystore signs with your own"
        )
    return notes

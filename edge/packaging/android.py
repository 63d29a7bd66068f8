"""A bundle becomes a signed APK: compile, pack, align, sign, check, publish."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from edge import bundle as bundles
from edge.packaging import apk, dex, elf, manifest_lint, native, parts, phone_model, publishing, signing, tools
from edge.packaging.apk import Entry
from edge.packaging.phone_model import PhoneModel
from edge.progress import Progress

APP = Path(__file__).parents[1] / "apps" / "android"
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
    found = tools.find()
    name = manifest_lint.package_of(APP / "AndroidManifest.xml")
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
        entries = [*_code(found, work, progress), *(Entry(f"lib/{manifest_lint.ABI}/{p.name}", p) for p in libraries)]
        entries += [*_page(), *_licences(progress)]
        if embedded:
            entries += _embedded(request.model, model)
        unsigned, signed = work / "unsigned.apk", folder / request.output.name
        progress.stage(f"write {request.output.name}", sum(entry.size for entry in entries))
        apk.write(unsigned, entries, progress.advance)
        progress.stage("sign and verify")
        signing.sign(found, key, unsigned, signed, manifest_lint.MIN_SDK)
        certificate = signing.verify(found, signed)
        apk.align_check(found, signed)
        manifest_lint.check_badging(found, signed, name, app_version())
        _remove(work)
        total, sizes = signed.stat().st_size, apk.sizes(signed)
    progress.done()
    return Report(
        output=request.output,
        package=name,
        version=app_version(),
        model=model.id,
        embedded=embedded,
        bytes=total,
        sizes=sizes,
        libraries={p: list(needed) for p, needed in libraries_needed.items()},
        certificate=certificate,
        debug_key=key.debug,
        notes=list(_notes(request, model, embedded, total, debug=key.debug)),
    )

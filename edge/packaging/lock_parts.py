"""`python -m edge.packaging.lock_parts [--check]`: ask the registries what the parts of parts.lock are, and write or
compare their addresses, sizes and hashes. The sources and kept members are the file's own, edited by hand."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
import urllib.parse
from dataclasses import asdict, replace
from pathlib import Path

import tomlkit

from converters.errors import EdgeError, SourceError
from edge.packaging.parts import NPM, PARTS, PYPI, Part, read
from edge.progress import Progress, Silent
from edge.sources import cache, download, index, web
from edge.units import size as readable

_HEADER = (
    "What apps are built from. Written by `python -m edge.packaging.lock_parts`; source and keep are edited."
)


def resolve(part: Part, progress: Progress) -> Part:
    """The part as its registry has it now. Raises SourceError when it has none."""
    if part.source.startswith("pypi:"):
        return _of_pypi(part)
    return _of_npm(part, progress)


def _of_pypi(part: Part) -> Part:
    project, _, version = part.source.removeprefix("pypi:").partition("==")
    pattern = re.compile(rf"-{re.escape(version)}-py3-none-manylinux\S*_{part.machine}\b\S*\.whl")
    found = [w for w in index.listing(f"{PYPI}/{project}/") if pattern.search(w.filename)]
    if len(found) != 1 or found[0].sha256 is None or found[0].size is None:
        raise SourceError(
            f"PyPI has no one wheel of {part.source} for {part.machine}", hint="check its version"
        )
    return replace(part, url=found[0].url, sha256=found[0].sha256, size=found[0].size)


def _of_npm(part: Part, progress: Progress) -> Part:
    """npm tells a SHA-512; the SHA-256 and the size are those of the bytes that have it."""
    name, _, version = part.source.removeprefix("npm:").rpartition("@")
    page, _ = web.get_page(f"{NPM}{urllib.parse.quote(name, safe='@')}/{version}", "application/json")
    told = json.loads(page)["dist"]
    target = cache.place("downloads", told["tarball"].rpartition("/")[2])
    with cache.exclusive(target):
        sha256 = download.fetch(
            told["tarball"], target, size=None, sha256=None, label=part.source, progress=progress
        )
        with target.open("rb") as file:
            digest = hashlib.file_digest(file, "sha512").digest()
        size = target.stat().st_size
    if told["integrity"] != "sha512-" + base64.b64encode(digest).decode():
        target.unlink()
        raise SourceError(f"{part.source} is not what npm says: {told['integrity']}", hint="run it again")
    return replace(part, url=told["tarball"], sha256=sha256, size=size)


def dumps(parts: list[Part]) -> str:
    """The file's text."""
    document = tomlkit.document()
    document.add(tomlkit.comment(_HEADER))
    entries = tomlkit.aot()
    for part in parts:
        table = tomlkit.table()
        table.update({k: list(v) if k == "keep" else v for k, v in asdict(part).items() if v is not None})
        table["keep"].multiline(True)
        entries.append(table)
    document.add("part", entries)
    return tomlkit.dumps(document)


def main(arguments: list[str], path: Path = PARTS) -> int:
    """Exit code 0; 1 when a part differs (`--check`) or cannot be had."""
    try:
        known = read(path)
        found = [resolve(part, Silent()) for part in known]
    except EdgeError as error:
        print(f"error: {error.cause}\nhint: {error.hint}", file=sys.stderr)
        return error.exit_code
    for old, new in zip(known, found, strict=True):
        where, state = f" ({new.machine})" if new.machine else "", "as locked" if old == new else "changed"
        print(f"{new.source}{where}: {readable(new.size)}, sha256 {new.sha256}, {state}")
    if "--check" in arguments:
        return int(known != found)
    path.write_text(dumps(found), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

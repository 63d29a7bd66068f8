"""The pinned parts that an app is built from: npm and PyPI archives, fetched once, verified, unpacked in the cache.

parts.lock (TOML) names for each part its source, licence, archive (address, size, SHA-256) and the members that are
kept. `python -m edge.packaging.lock_parts` writes and checks it.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import tomllib
from dataclasses import dataclass
from pathlib import Path

from converters.errors import PackageError, SourceError
from edge.lock import LockedFile
from edge.packaging import archives
from edge.progress import Progress
from edge.sources import cache, download, index

NPM = "https://registry.npmjs.org/"
PYPI = "https://pypi.org/simple"
PARTS = Path(__file__).with_name("parts.lock")


@dataclass(frozen=True)
class Part:
    """`source` is `npm:name@version` or `pypi:name==version`; `machine` what it runs on, None for every one; `keep`
    are patterns (fnmatch) of the members that are unpacked."""

    name: str
    source: str
    licence: str
    url: str
    size: int
    sha256: str
    keep: tuple[str, ...]
    machine: str | None = None

    @property
    def file(self) -> str:
        return self.url.rpartition("/")[2]


def read(path: Path = PARTS) -> list[Part]:
    """All parts of the lock. Raises SourceError for a file that is no lock."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        return [Part(**{**entry, "keep": tuple(entry["keep"])}) for entry in data["part"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceError(f"{path} is no list of parts: {error}", hint="install edge again") from error


def fetch(name: str, progress: Progress) -> Path:
    """The directory in the cache that holds the kept members of the part, whole.

    What lies there is compared with the hashes taken when it was unpacked. Raises PackageError for a machine that the
    part does not run on, SourceError where its archive cannot be had or is another one.
    """
    machine = platform.machine()
    part = next((p for p in read() if p.name == name and p.machine in (None, machine)), None)
    if part is None:
        raise PackageError(
            f"there is no {name} for this machine ({machine})",
            hint="build the app on Linux x86_64 or aarch64",
        )
    target = cache.place("parts", f"{name}-{part.sha256[:16]}")
    record = target.with_name(f"{target.name}.json")
    with cache.exclusive(target):
        if not _whole(target, record, part):
            _unpack(part, target, record, progress)
    return target


def _unpack(part: Part, target: Path, record: Path, progress: Progress) -> None:
    archive = cache.place("downloads", part.file)
    with cache.exclusive(archive):
        if not archive.is_file() or cache.sha256_of(archive) != part.sha256:
            download.fetch(
                _address(part),
                archive,
                size=part.size,
                sha256=part.sha256,
                label=f"{part.name} ({part.file})",
                progress=progress,
            )
        partial = target.with_name(f".{target.name}.part")
        shutil.rmtree(partial, ignore_errors=True)
        try:
            progress.stage(f"unpack {part.name}")
            archives.unpack(archive, partial, part.keep, progress.advance)
            progress.done()
            files = [
                cache.locked_file(partial, path.relative_to(partial).as_posix())
                for path in sorted(partial.rglob("*"))
                if path.is_file()
            ]
            listed = {"keep": part.keep, "files": [[f.path, f.size, f.sha256] for f in files]}
            cache.write_whole(record, json.dumps(listed).encode())
            shutil.rmtree(target, ignore_errors=True)
            partial.rename(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        archive.unlink()


def _whole(target: Path, record: Path, part: Part) -> bool:
    """Whether the unpacked files are those that the archive held."""
    try:
        listed = json.loads(record.read_text())
        files = [LockedFile(*entry) for entry in listed["files"]]
        stamps = cache.place("stamps", target.name, "x").parent
        return listed["keep"] == list(part.keep) and not any(
            cache.is_intact(target / f.path, f, stamps / f.path.replace("/", "!")) for f in files
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _address(part: Part) -> str:
    """Where the archive is fetched: the locked address, or the registry that this machine is set to."""
    if part.source.startswith("npm:"):
        registry = os.environ.get("NPM_CONFIG_REGISTRY", NPM)
        return registry.rstrip("/") + "/" + part.url.removeprefix(NPM)
    if index.index_url().rstrip("/") == PYPI:
        return part.url
    project, _, version = part.source.removeprefix("pypi:").partition("==")
    return index.find(project, version, part.file).url

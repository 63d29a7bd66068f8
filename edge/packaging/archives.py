"""Members out of an npm tarball or a wheel: plain files of kept names only, nothing outside the directory, nothing
without bound."""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import IO

from converters.errors import SourceError

MAX_MEMBERS = 200_000
MAX_BYTES = 2 << 30
"""Of all kept members together."""
_CHUNK = 1 << 20
_Member = tuple[str, int, int, Callable[[], IO[bytes] | None]]
"""Name, bytes, permission bits, and how to read it."""


def unpack(archive: Path, directory: Path, keep: Sequence[str], advance: Callable[[int], None]) -> None:
    """Write the members of a .tgz or .whl whose names match a pattern of `keep` below `directory`, which is made.

    A pattern is one of fnmatch, whose `*` takes slashes too. Raises SourceError when a kept name leaves the directory,
    when a pattern keeps nothing, and for an archive that is damaged or too large.
    """
    directory.mkdir(parents=True)
    unused, total = set(keep), 0
    try:
        for count, (name, size, mode, reader) in enumerate(_members(archive)):
            if count > MAX_MEMBERS:
                raise _refused(archive, f"holds more than {MAX_MEMBERS} members")
            matching = [pattern for pattern in keep if fnmatchcase(name, pattern)]
            if not matching:
                continue
            unused.difference_update(matching)
            total += size
            if total > MAX_BYTES:
                raise _refused(archive, f"unpacks to more than {MAX_BYTES >> 30} GiB")
            parts = name.split("/")
            if name.startswith("/") or any(part in ("", ".", "..") for part in parts) or "\\" in name:
                raise _refused(archive, f"has a member {name!r}, which leaves its directory")
            target = directory.joinpath(*parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            source = reader()
            if source is None:
                raise _refused(archive, f"has a member {name!r} that is no file")
            with source, target.open("xb") as sink:
                while chunk := source.read(_CHUNK):
                    sink.write(chunk)
                    advance(len(chunk))
            target.chmod(0o755 if mode & 0o111 else 0o644)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise _refused(archive, f"cannot be unpacked: {error}") from error
    except FileExistsError as error:
        raise _refused(archive, f"has two members {Path(error.filename).name!r}") from error
    if unused:
        raise _refused(archive, f"holds nothing like {min(unused)!r}")


def _members(archive: Path) -> Iterator[_Member]:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            for entry in wheel.infolist():
                if not entry.is_dir():
                    reader = partial(wheel.open, entry)
                    yield entry.filename, entry.file_size, entry.external_attr >> 16, reader
        return
    with tarfile.open(archive, "r|gz") as tape:
        for member in tape:
            if not member.isdir():
                yield member.name, member.size, member.mode, partial(_plain, tape, member)


def _plain(tape: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes] | None:
    """None for a link or a device, which `extractfile` would follow or make up."""
    return tape.extractfile(member) if member.isreg() else None


def _refused(archive: Path, what: str) -> SourceError:
    return SourceError(
        f"{archive.name} {what}", hint="do not use this archive; `python -m edge.packaging.lock_parts`"
    )

"""`models.lock`: which model a name means, down to the bytes.

TOML like a package lock: per model its name, source, licence, and for every file path, size and SHA-256.
The file is written by `edge lock`; the hashes in it are computed or fetched from the source, never typed in.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters.errors import SourceError

VERSION = 1
FILE_NAME = "models.lock"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,95}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_BYTES = 1 << 24
_HEADER = "Written by `edge lock`: which model a name means, down to the bytes."


@dataclass(frozen=True)
class LockedFile:
    """`path` is relative, with forward slashes; `size` in bytes; `sha256` as 64 lower-case hex digits."""

    path: str
    size: int
    sha256: str

    def __post_init__(self) -> None:
        parts = self.path.split("/")
        if any(part in ("", ".", "..") for part in parts) or re.search(
            r'[\\:*?"<>|\x00-\x1f\x7f]', self.path
        ):
            raise SourceError(f"file path {self.path!r} would leave its directory", hint="correct the path")
        if type(self.size) is not int or self.size < 0:
            raise SourceError(f"{self.path}: size is {self.size!r}", hint="run `edge lock`")
        if not isinstance(self.sha256, str) or not _SHA256.fullmatch(self.sha256):
            raise SourceError(
                f"{self.path}: sha256 is {self.sha256!r}, not 64 hex digits", hint="run `edge lock`"
            )


@dataclass(frozen=True)
class LockedModel:
    """One name. `source` is a pinned source string (edge.sources.spec), `licence` an SPDX id where known."""

    name: str
    source: str
    licence: str | None
    files: tuple[LockedFile, ...]

    def __post_init__(self) -> None:
        check_name(self.name)
        if len({f.path for f in self.files}) != len(self.files) or not self.files:
            raise SourceError(f"model '{self.name}' lists no file, or one twice", hint="run `edge lock`")

    def difference(self, other: LockedModel) -> list[str]:
        """What `other` has changed, one line each; empty when they are the same."""
        changes = []
        if self.source != other.source:
            changes.append(f"{self.name}: source {self.source} -> {other.source}")
        if self.licence != other.licence:
            changes.append(f"{self.name}: licence {self.licence} -> {other.licence}")
        mine, theirs = {f.path: f for f in self.files}, {f.path: f for f in other.files}
        for path in sorted(mine.keys() | theirs.keys()):
            if path not in theirs:
                changes.append(f"{self.name}: {path} is gone")
            elif path not in mine:
                changes.append(f"{self.name}: {path} is new")
            elif mine[path] != theirs[path]:
                changes.append(f"{self.name}: {path} sha256 {mine[path].sha256} -> {theirs[path].sha256}")
        return changes


def check_name(name: str) -> str:
    """`name` itself if it can be a model's name; raises SourceError otherwise."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise SourceError(
            f"{name!r} is no model name", hint="use lower-case letters, digits, '.', '_' and '-'"
        )
    return name


def read(path: Path) -> dict[str, LockedModel]:
    """The models by name. Raises SourceError that names the file, and the key where there is one."""
    hint = f"run `edge lock` to write it anew, or `git checkout {path.name}`"
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise SourceError(f"{path} is larger than any lock file", hint=hint)
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}", hint="check the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SourceError(f"{path} is no TOML: {error}", hint=hint) from error
    if data.get("version") != VERSION:
        raise SourceError(f"{path} has version {data.get('version')!r}, not {VERSION}", hint="update edge")
    try:
        models = [_model(entry) for entry in data.get("model", [])]
    except (KeyError, TypeError, AttributeError) as error:
        raise SourceError(f"{path}: an entry lacks or mistypes {error}", hint=hint) from error
    except SourceError as error:
        raise SourceError(f"{path}: {error.cause}", hint=hint) from error
    if len({m.name for m in models}) != len(models):
        raise SourceError(f"{path} has a name twice", hint=hint)
    return {m.name: m for m in models}


def _model(entry: Mapping[str, Any]) -> LockedModel:
    unknown = set(entry) - {"name", "source", "licence", "file"}
    if unknown:
        raise SourceError(f"unknown key '{min(unknown)}'", hint="update edge")
    files = tuple(LockedFile(f["path"], f["size"], f["sha256"]) for f in entry["file"])
    if not isinstance(entry["source"], str) or not isinstance(entry.get("licence", ""), str):
        raise SourceError("source and licence are strings", hint="run `edge lock`")
    return LockedModel(entry["name"], entry["source"], entry.get("licence"), files)


def dumps(models: Mapping[str, LockedModel]) -> str:
    """The file's text: models by name, files by path, so that the same models give the same bytes."""
    # Only who writes needs it; the shell's completions read.
    import tomlkit

    document = tomlkit.document()
    document.add(tomlkit.comment(_HEADER))
    document.add("version", tomlkit.item(VERSION))
    entries = tomlkit.aot()
    for model in sorted(models.values(), key=lambda m: m.name):
        table = tomlkit.table()
        table.add("name", model.name)
        table.add("source", model.source)
        if model.licence is not None:
            table.add("licence", model.licence)
        files = tomlkit.aot()
        for file in sorted(model.files, key=lambda f: f.path):
            row = tomlkit.table()
            row.update({"path": file.path, "size": file.size, "sha256": file.sha256})
            files.append(row)
        table.add("file", files)
        entries.append(table)
    document.add("model", entries)
    return tomlkit.dumps(document)


def write(path: Path, models: Mapping[str, LockedModel]) -> None:
    """Replace `path` whole or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("w", encoding="utf-8", newline="\n") as file:
            file.write(dumps(models))
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise SourceError(
            f"cannot write {path}: {error.strerror}", hint="check the directory's rights"
        ) from error


def find(start: Path | None = None) -> Path | None:
    """The nearest models.lock from `start` (default: the working directory) upward."""
    start = (start or Path.cwd()).absolute()
    return next((d / FILE_NAME for d in (start, *start.parents) if (d / FILE_NAME).is_file()), None)


def packaged() -> Path:
    """The copy of the project's own models.lock that is installed with the package."""
    return Path(__file__).with_name(FILE_NAME)

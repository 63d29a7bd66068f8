"""Bring models.lock in line with its sources, or say what that would change."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from converters.errors import SourceError
from edge import lock as locks
from edge import sources
from edge.progress import Progress


@dataclass(frozen=True)
class Result:
    """`changes`: one line for each difference between the file as it was and the sources."""

    path: Path
    names: list[str]
    changes: list[str]


def relock(
    name: str | None,
    source: str | None,
    *,
    licence: str | None,
    check: bool,
    path: Path | None,
    progress: Progress,
) -> Result:
    """Lock one model (`name`; with `source` it may be new), or all of the file. `check`: write nothing.

    Raises SourceError when a name or source is unknown, AccessError when a source refuses.
    """
    path = path or locks.find() or Path.cwd() / locks.FILE_NAME
    models = locks.read(path) if path.is_file() else {}
    if name is None and not models:
        raise SourceError(f"{path} has no model to lock", hint="add one: `edge lock NAME SOURCE`")
    if name is not None and source is None and name not in models:
        raise SourceError(
            f"{path} has no '{name}'", hint=f"say where it comes from: `edge lock {name} SOURCE`"
        )
    updated, changes = dict(models), []
    for each in [name] if name else sorted(models):
        old = models.get(each)
        if old and source in (None, old.source) and licence in (None, old.licence):
            found = sources.changes(old, path.parent, progress)
            if check or not found:
                changes += found
                continue
        new = sources.add(
            each,
            source or models[each].source,
            licence or (old.licence if old else None),
            path.parent,
            progress,
        )
        changes += old.difference(new) if old else [f"{each}: new, {new.source}"]
        updated[each] = new
    progress.done()
    if not check and (changes or not path.is_file()):
        locks.write(path, updated)
    return Result(path, sorted(updated), changes)

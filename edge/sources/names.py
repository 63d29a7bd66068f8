"""What a name means: which lock file knows it, and what a model is called that nobody named."""

from __future__ import annotations

import re
from pathlib import Path

from converters.errors import SourceError
from edge import lock as locks
from edge.lock import LockedModel
from edge.sources.spec import File, Hf, Pypi, Spec, is_source, parse


def held(name: str, lock: Path | None = None) -> tuple[Path, LockedModel] | None:
    """The lock file that knows `name` (a model's name, or a source), and what it knows; None if none does.

    Raises SourceError for a malformed source.
    """
    spec = parse(name) if is_source(name) else None
    for path, models in read_locks(lock).items():
        for model in models.values():
            if model.name == name or (spec and _same(spec, parse(model.source))):
                return path, model
    return None


def unknown(name: str, lock: Path | None = None) -> SourceError:
    """The error for a name that `held` does not know."""
    models_of = read_locks(lock)
    known = ", ".join(sorted({n for models in models_of.values() for n in models}))
    hint = f"known names: {known}; add one with `edge lock NAME SOURCE`"
    where = lock or locks.find() or "a lock"
    return SourceError(f"'{name}' is no directory and no name in {where}", hint=hint)


def read_locks(lock: Path | None) -> dict[Path, dict[str, LockedModel]]:
    """The locks that are asked, in order."""
    return {
        path: locks.read(path) for path in (lock or locks.find(), None if lock else locks.packaged()) if path
    }


def _same(asked: Spec, locked: Spec) -> bool:
    """Whether a locked source answers what was asked: the repository, and the commit as far as it was given."""
    if isinstance(asked, Hf) and isinstance(locked, Hf):
        return asked.repo == locked.repo and (locked.revision or "").startswith(asked.revision or "")
    return asked == locked


def default_name(spec: Spec) -> str:
    """What a model is called when nobody named it."""
    match spec:
        case Hf():
            return name_from(spec.repo.partition("/")[2])
        case Pypi():
            return name_from(Path(spec.member).stem)
        case File():
            return name_from(Path(spec.path).name.removesuffix(".gguf"))


def name_from(text: str) -> str:
    """A model's name out of any text."""
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")[:96] or "model"

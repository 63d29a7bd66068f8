"""Models on this disk: `file:path` of a checkpoint directory or a .gguf file, used where they lie."""

from __future__ import annotations

from pathlib import Path

from converters.errors import SourceError
from edge.lock import LockedFile, LockedModel
from edge.progress import Progress
from edge.sources import cache
from edge.sources.hf import SENTENCES, WANTED
from edge.sources.spec import File


def _names(root: Path) -> list[str]:
    """The files of a checkpoint directory that a conversion may read."""
    top = {p.name for p in root.iterdir() if p.is_file() and WANTED.fullmatch(p.name)}
    return sorted(top | {name for name in SENTENCES if (root / name).is_file()})


def _root(spec: File, base: Path) -> tuple[Path, list[str]]:
    path = base / spec.path
    if path.is_dir():
        names = _names(path)
        if "config.json" not in names:
            raise SourceError(f"{path} has no config.json", hint="give a directory in Hugging Face layout")
        return path, names
    if path.is_file() and path.suffix == ".gguf":
        return path.parent, [path.name]
    raise SourceError(f"{path} is no checkpoint directory and no .gguf file", hint="check the path")


def lock_files(spec: File, base: Path, progress: Progress) -> tuple[LockedFile, ...]:
    root, names = _root(spec, base)
    progress.stage(f"hash {spec.path}", sum((root / n).stat().st_size for n in names))
    files = tuple(cache.locked_file(root, name, progress) for name in names)
    progress.done()
    return files


def fetch(spec: File, base: Path, model: LockedModel, progress: Progress) -> dict[str, Path]:
    """The locked files where they lie, verified. A file that the lock does not know is refused as well."""
    root, names = _root(spec, base)
    relock = f"restore it, or accept the change with `edge lock {model.name}`"
    if extra := sorted(set(names) ^ {f.path for f in model.files}):
        raise SourceError(
            f"{root / extra[0]} is not as locked: there, or in the lock, but not both", hint=relock
        )
    progress.stage(f"verify {spec.path}", sum(f.size for f in model.files))
    for file in model.files:
        stamp = cache.place("stamps", f"{model.name}-{file.sha256[:16]}.json")
        actual = cache.is_intact(root / file.path, file, stamp, progress)
        if actual:
            raise cache.mismatch(str(root / file.path), file.sha256, actual, hint=relock)
    progress.done()
    return {f.path: root / f.path for f in model.files}

"""A name or a path becomes a verified checkpoint directory on this machine."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from converters.errors import SourceError
from edge import lock as locks
from edge.lock import LockedFile, LockedModel
from edge.progress import Progress, Silent
from edge.sources import cache, checkpoints, file, hf, pypi
from edge.sources.spec import File, Hf, Pypi, is_source, parse

__all__ = ["Resolved", "add", "changes", "fetch", "resolve"]


@dataclass(frozen=True)
class Resolved:
    """`directory` is a checkpoint. `files` are the locked files it was made of; none for a plain path."""

    directory: Path
    name: str
    source: str
    licence: str | None
    files: tuple[LockedFile, ...]


def resolve(
    name_or_path: str,
    *,
    lock: Path | None = None,
    locked: bool = False,
    frozen: bool = False,
    progress: Progress | None = None,
) -> Resolved:
    """A directory or .gguf file is used as it is; a name is looked up in models.lock and fetched if need be.

    The lock is `lock`, or the nearest models.lock upward from the working directory, or the one installed with
    edge. A source string (`hf:owner/name`) that no lock holds yet is locked first. `locked`: the source is
    asked whether it still gives what the lock says, and nothing may be added. `frozen`: the lock is taken as
    it is. Raises SourceError or AccessError; bytes are verified before anything reads them.
    """
    progress = progress or Silent()
    path = Path(name_or_path)
    if path.is_dir():
        name = _name_from(path.absolute().name)
        return Resolved(path, name, f"file:{path.absolute().name}", None, ())
    if path.suffix == ".gguf" and path.is_file():
        one = file.lock_files(File(path.name), path.parent, progress)
        model = LockedModel(_name_from(path.stem), f"file:{path.name}", None, one)
        return fetch(model, path.parent, progress)
    where, model = _lookup(name_or_path, lock, add_missing=not (locked or frozen), progress=progress)
    if locked and (found := changes(model, where.parent, progress)):
        raise SourceError(f"{where} is out of date: {found[0]}", hint=f"accept it with `edge lock {model.name}`")
    return fetch(model, where.parent, progress)


def fetch(model: LockedModel, base: Path, progress: Progress) -> Resolved:
    """Bring a locked model's files here and verify them. `base`: what `file:` paths are relative to."""
    spec = parse(model.source)
    match spec:
        case Hf():
            paths = hf.fetch(spec, model, progress)
        case Pypi():
            paths = pypi.fetch(spec, model, progress)
        case File():
            paths = file.fetch(spec, base, model, progress)
    gguf = next((f for f in model.files if f.path.endswith(".gguf")), None)
    if gguf is not None:
        texts = {p.name: p.read_bytes() for p in paths.values() if p.suffix != ".gguf"}
        texts["NOTICE"] = _notice(model, gguf)
        directory = checkpoints.rewritten(model.name, paths[gguf.path], gguf.sha256, texts, progress)
    elif isinstance(spec, File):
        directory = base / spec.path
    else:
        directory = checkpoints.linked(model.name, paths, model.files, progress)
    return Resolved(directory, model.name, model.source, model.licence, model.files)


def add(name: str, source: str, licence: str | None, base: Path, progress: Progress) -> LockedModel:
    """Ask the source what it holds and pin it. Writes no lock file."""
    spec = parse(source)
    locks.check_name(name)
    match spec:
        case Hf():
            found = hf.listing(spec)
            files = hf.lock_files(found, progress)
            return LockedModel(name, str(found.spec), licence or found.licence, files)
        case Pypi():
            return LockedModel(name, source, licence, pypi.lock_files(spec, progress))
        case File():
            return LockedModel(name, source, licence, file.lock_files(spec, base, progress))


def changes(model: LockedModel, base: Path, progress: Progress) -> list[str]:
    """What `edge lock` would change about a model, by asking its source without fetching weights."""
    spec = parse(model.source)
    match spec:
        case Hf():
            found = hf.listing(spec)
            files = tuple(
                LockedFile(f.path, found.files[f.path][0], found.files[f.path][1] or f.sha256)
                for f in model.files
                if f.path in found.files
            )
            new = [f"{model.name}: {p} is new" for p in sorted(found.files.keys() - {f.path for f in model.files})]
            if not files:
                return [f"{model.name}: every file is gone"]
            return model.difference(LockedModel(model.name, str(found.spec), model.licence, files)) + new
        case Pypi():
            filename, sha256 = pypi.listed(spec)
            wheel = next((f for f in model.files if f.path == filename), None)
            if wheel is None:
                return [f"{model.name}: {filename} is new"]
            if sha256 is not None and sha256 != wheel.sha256:
                return [f"{model.name}: {filename} sha256 {wheel.sha256} -> {sha256}"]
            return []
        case File():
            return model.difference(add(model.name, model.source, model.licence, base, progress))


def _lookup(
    name: str, lock: Path | None, *, add_missing: bool, progress: Progress
) -> tuple[Path, LockedModel]:
    near = lock or locks.find()
    for where in [near] if lock else [near, locks.packaged()]:
        if where is None or not where.is_file():
            continue
        models = locks.read(where)
        for model in models.values():
            if name == model.name or (is_source(name) and model.source.partition("@")[0] == name.partition("@")[0]
                                      and model.source.startswith(name)):  # fmt: skip
                return where, model
    if not is_source(name):
        known = sorted(locks.read(near)) if near else sorted(locks.read(locks.packaged()))
        raise SourceError(f"'{name}' is no directory and no name in {near or 'the lock'}",
                          hint=f"known names: {', '.join(known)}; add one with `edge lock NAME SOURCE`")  # fmt: skip
    if not add_missing:
        raise SourceError(f"{name} is not in models.lock", hint=f"add it first: `edge lock NAME {name}`")
    where = near or Path.cwd() / locks.FILE_NAME
    model = add(_name_from(name.partition("@")[0].partition("!")[0].rpartition("/")[2]), name, None, where.parent,
                progress)  # fmt: skip
    models = locks.read(where) if where.is_file() else {}
    if model.name in models:
        raise SourceError(f"{where} has another '{model.name}'", hint=f"choose a name: `edge lock NAME {name}`")
    locks.write(where, models | {model.name: model})
    progress.note(f"locked {model.name} = {model.source} in {where}")
    return where, model


def _name_from(text: str) -> str:
    """A model name made of any text."""
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")[:96] or "model"


def _notice(model: LockedModel, gguf: LockedFile) -> bytes:
    return (
        f"Model: {model.name}\n"
        f"Licence: {model.licence or 'not stated by the source'}\n"
        f"Origin: {model.source}\n"
        f"Origin SHA-256: {gguf.sha256}\n"
        "Changes: the weights were dequantized to float16 and rewritten in Phi-3 layout (fused qkv and\n"
        "gate/up projections, tokenizer as tokenizer.json). The function is that of the origin.\n"
    ).encode()

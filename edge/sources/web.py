"""HTTP under the person's proxy and CA settings, with errors told apart: worth another try, or not."""

from __future__ import annotations

import base64
import os
import ssl
import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPException, HTTPResponse

from converters.errors import AccessError, SourceError

TIMEOUT_SECONDS = 60.0
_MAX_PAGE_BYTES = 1 << 26
# On top of the system's, and of SSL_CERT_FILE, which OpenSSL itself reads.
_CA_VARIABLES = ("PIP_CERT", "REQUESTS_CA_BUNDLE")


class RangeRefusedError(HTTPException):
    """The server has nothing from that byte on: what lies here is not a beginning of its file."""


def get_page(url: str, accept: str) -> tuple[bytes, str]:
    """A small page (an index) and its content type."""
    try:
        label = f"page {urllib.parse.urlsplit(url).path}"
        with connect(url, {"Accept": accept}, label) as response:
            data = response.read(_MAX_PAGE_BYTES + 1)
    except (HTTPException, OSError) as error:
        raise SourceError(f"cannot read from {host(url)}: {error}", hint="check the network") from error
    if len(data) > _MAX_PAGE_BYTES:
        raise SourceError(f"{host(url)} answers with an endless page", hint="check PIP_INDEX_URL")
    return data, response.headers.get_content_type()


def read_range(url: str, start: int, length: int, label: str, authorization: str | None = None) -> bytes:
    """`length` bytes from byte `start`; no more are read, whatever the server sends.

    A server that knows no ranges begins at the start: what lies before is read over, so `start` should be small.
    Raises SourceError, and AccessError as `connect` does.
    """
    headers = {"Range": f"bytes={start}-{start + length - 1}"}
    try:
        with connect(url, headers, label, authorization) as response:
            if response.status == 206 and not _begins_at(response, start):
                raise HTTPException("it answers with another range")
            skipped = 0 if response.status == 206 else start
            data = response.read(skipped + length)[skipped:]
    except (HTTPException, OSError) as error:
        raise SourceError(
            f"cannot read {label} from {host(url)}: {error}", hint="check the network, and run it again"
        ) from error
    if len(data) < length:
        raise SourceError(
            f"{host(url)} sends {len(data)} of {length} bytes of {label}", hint="run the same command again"
        )
    return data


def _begins_at(response: HTTPResponse, start: int) -> bool:
    return response.headers.get("Content-Range", "").startswith(f"bytes {start}-")


def host(url: str) -> str:
    return urllib.parse.urlsplit(url).hostname or "?"


def connect(url: str, headers: dict[str, str], label: str, authorization: str | None = None) -> HTTPResponse:
    """A connection under the person's proxy and CA settings. HTTPException and OSError: worth another try."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise SourceError(f"the index address {parts.scheme}:... is not http(s)", hint="check PIP_INDEX_URL")
    request = urllib.request.Request(
        parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl(),
        headers={"User-Agent": "edge", "Accept-Encoding": "identity", **headers},
    )
    if parts.username:
        pair = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        authorization = "Basic " + base64.b64encode(pair.encode()).decode()
    if authorization:
        # Unredirected: the file store that a server sends us on to is not told.
        request.add_unredirected_header("Authorization", authorization)
    try:
        context = _certificates()
        response: HTTPResponse = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS, context=context)
        return response
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in (401, 403):
            raise AccessError(
                f"{host(url)} refuses {label} ({error.code})", hint="check your rights there"
            ) from None
        if error.code == 416:
            raise RangeRefusedError(f"{host(url)} answers 416") from None
        if error.code >= 500 or error.code in (408, 429):
            raise HTTPException(f"{host(url)} answers {error.code}") from None
        raise SourceError(
            f"{host(url)} has no {label} ({error.code})", hint="check the source's spelling"
        ) from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, (ConnectionError, TimeoutError)):
            raise error.reason from None
        hint = "check the network, the proxy and PIP_INDEX_URL"
        raise SourceError(f"cannot reach {host(url)}: {error.reason}", hint=hint) from error


def _certificates() -> ssl.SSLContext:
    context = ssl.create_default_context()
    for variable in _CA_VARIABLES:
        if path := os.environ.get(variable):
            try:
                context.load_verify_locations(path)
            except OSError as error:
                raise SourceError(
                    f"cannot read {variable}={path}: {error}", hint=f"correct {variable}"
                ) from error
    return context

"""A web server on this machine that plays a model hub or a package index, and misbehaves on request."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_PIECE = 1 << 16


@dataclass
class Site:
    """What the server holds. `cuts[path]`: bytes after which each coming connection breaks, in turn.

    `ranges`: whether it knows what a range is. `sent[path]`: bytes of a body that a client has let it send.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    headers: dict[str, dict[str, str]] = field(default_factory=dict)
    status: dict[str, tuple[int, dict[str, str]]] = field(default_factory=dict)
    cuts: dict[str, list[int]] = field(default_factory=dict)
    ranges: bool = True
    log: list[tuple[str, str, str | None]] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    sent: dict[str, int] = field(default_factory=dict)
    url: str = ""

    def gets(self, path: str) -> list[str | None]:
        """The Range header of every GET of `path` so far."""
        return [r for method, p, r in self.log if method == "GET" and p == path]


def _span(wanted: str | None, size: int) -> tuple[int, int]:
    """First byte, and the one after the last, of a Range header."""
    first, _, last = (wanted or "bytes=0-").removeprefix("bytes=").partition("-")
    return int(first), min(int(last) + 1, size) if last else size


@contextmanager
def serving(site: Site) -> Iterator[Site]:
    """Serve `site` on a free port of the loopback; its `url` says where."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def log_message(self, *args: Any) -> None:
            pass

        def _answer(self, *, body: bool) -> None:
            path, wanted = self.path.partition("?")[0], self.headers.get("Range")
            site.log.append((self.command, path, wanted))
            if "Authorization" in self.headers:
                site.tokens.add(self.headers["Authorization"])
            if path in site.status or path not in site.files:
                code, extra = site.status.get(path, (404, {}))
                self._head(code, {**extra, "Content-Length": "0"})
                return
            data = site.files[path]
            extra = {
                "Content-Type": site.types.get(path, "application/octet-stream"),
                **site.headers.get(path, {}),
            }
            start, end = _span(wanted if site.ranges else None, len(data))
            if wanted and site.ranges and start >= len(data):
                self._head(416, {"Content-Length": "0"})
                return
            if wanted and site.ranges:
                extra["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
            self._head(
                206 if "Content-Range" in extra else 200, {**extra, "Content-Length": str(end - start)}
            )
            if not body:
                return
            if site.cuts.get(path):
                self.wfile.write(data[start : start + site.cuts[path].pop(0)])
                self.wfile.flush()
                self.close_connection = True
                return
            with contextlib.suppress(ConnectionError):
                for at in range(start, end, _PIECE):
                    piece = data[at : min(at + _PIECE, end)]
                    self.wfile.write(piece)
                    site.sent[path] = site.sent.get(path, 0) + len(piece)

        def _head(self, code: int, headers: dict[str, str]) -> None:
            self.send_response(code)
            for key, value in headers.items():
                self.send_header(key, value)
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def add_repository(site: Site, repo: str, files: dict[str, bytes], *, licence: str = "mit") -> None:
    """The three routes of a hub that a pinned download needs: model info, and HEAD and GET of a file."""
    siblings = []
    for name, data in files.items():
        large = name.endswith(".safetensors")
        sha256, sha1 = hashlib.sha256(data).hexdigest(), hashlib.sha1(data).hexdigest()
        entry: dict[str, Any] = {"rfilename": name, "size": len(data), "blobId": sha1}
        if large:
            entry["lfs"] = {"sha256": sha256, "size": len(data), "pointerSize": 130}
        siblings.append(entry)
        path = f"/{repo}/resolve/{COMMIT}/{name}"
        site.files[path] = data
        site.headers[path] = {"ETag": f'"{sha256 if large else sha1}"', "X-Repo-Commit": COMMIT}
    info = {"id": repo, "sha": COMMIT, "siblings": siblings, "cardData": {"license": licence}, "tags": []}
    for route in (
        f"/api/models/{repo}",
        f"/api/models/{repo}/revision/main",
        f"/api/models/{repo}/revision/{COMMIT}",
    ):
        site.files[route] = json.dumps(info).encode()
        site.types[route] = "application/json"


def add_wheel(site: Site, project: str, filename: str, data: bytes, *, html: bool = False) -> str:
    """An index page with one wheel; returns the wheel's path."""
    sha256, path = hashlib.sha256(data).hexdigest(), f"/files/{filename}"
    site.files[path] = data
    page = f"/simple/{project}/"
    if html:
        site.files[page] = f'<a href="../../files/{filename}#sha256={sha256}">{filename}</a>'.encode()
        site.types[page] = "text/html"
    else:
        entry = {"filename": filename, "url": path, "hashes": {"sha256": sha256}, "size": len(data)}
        site.files[page] = json.dumps({"files": [entry]}).encode()
        site.types[page] = "application/vnd.pypi.simple.v1+json"
    return path

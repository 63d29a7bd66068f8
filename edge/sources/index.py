"""A Python package index, asked for one project's wheels (PEP 503 HTML, PEP 691 JSON).

Asked directly and not through `pip download`, which starts a broken download from zero. pip's own setting of
the index is honoured: PIP_INDEX_URL, or `index-url` of pip's configuration files.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.parse
from dataclasses import dataclass
from html.parser import HTMLParser

from converters.errors import SourceError
from edge.sources import web

_ACCEPT = "application/vnd.pypi.simple.v1+json, text/html;q=0.5"


@dataclass(frozen=True)
class Wheel:
    """What the index tells of a wheel; hash and size only where it does."""

    filename: str
    url: str
    sha256: str | None
    size: int | None


def find(project: str, version: str, filename: str | None = None) -> Wheel:
    """The wheel of `project==version`: `filename` where it is known, else the one for every platform.

    Raises SourceError when the index has none.
    """
    index = index_url()
    project = _normal(project)
    wheels = [w for w in listing(f"{index.rstrip('/')}/{project}/") if _version(w, project) == version]
    if filename is not None:
        wheels = [w for w in wheels if w.filename == filename]
    elif len(wheels) > 1:
        wheels = [w for w in wheels if w.filename.endswith("-none-any.whl")]
    if len(wheels) != 1:
        what = filename or f"wheel of {project}=={version} for every platform"
        raise SourceError(f"{web.host(index)} has no {what}", hint="check the version, and PIP_INDEX_URL")
    return wheels[0]


def index_url() -> str:
    """pip's index: the environment variable, else pip's configuration, else pypi.org."""
    if url := os.environ.get("PIP_INDEX_URL"):
        return url
    command = [sys.executable, "-m", "pip", "config", "list"]
    settings = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    match = re.search(r"^(?:download|install|global)\.index-url='([^']+)'$", settings, re.MULTILINE)
    return match[1] if match else "https://pypi.org/simple"


def _normal(project: str) -> str:
    return re.sub(r"[-_.]+", "-", project).lower()


def _version(wheel: Wheel, project: str) -> str | None:
    """The version in a wheel's file name (PEP 427), None when it is no wheel of the project."""
    parts = wheel.filename.removesuffix(".whl").split("-")
    if not wheel.filename.endswith(".whl") or len(parts) < 5 or _normal(parts[0]) != project:
        return None
    return parts[1]


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.hrefs: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.hrefs += [value for key, value in attrs if tag == "a" and key == "href" and value]


def listing(page: str) -> list[Wheel]:
    """What the index page of a project lists. Raises SourceError for a page that is none."""
    data, kind = web.get_page(page, _ACCEPT)
    try:
        if kind.endswith("json"):
            return [
                Wheel(f["filename"], _join(page, f["url"]), f["hashes"].get("sha256"), f.get("size"))
                for f in json.loads(data)["files"]
            ]
        links = _Links()
        links.feed(data.decode("utf-8"))
        return [_linked(page, href) for href in links.hrefs]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        hint = "PIP_INDEX_URL should name a PEP 503 index, such as https://pypi.org/simple"
        raise SourceError(f"{web.host(page)} gives no package index", hint=hint) from error


def _linked(page: str, href: str) -> Wheel:
    url, fragment = urllib.parse.urldefrag(_join(page, href))
    name = urllib.parse.unquote(urllib.parse.urlsplit(url).path.rpartition("/")[2])
    return Wheel(name, url, dict(urllib.parse.parse_qsl(fragment)).get("sha256"), None)


def _join(page: str, url: str) -> str:
    """The absolute address; an index that wants a user wants the same one for its files, on its own host only."""
    base, found = urllib.parse.urlsplit(page), urllib.parse.urlsplit(urllib.parse.urljoin(page, url))
    if base.username and (base.scheme, base.hostname, base.port) == (
        found.scheme,
        found.hostname,
        found.port,
    ):
        found = found._replace(netloc=base.netloc)
    return found.geturl()

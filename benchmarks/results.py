"""Results of long benchmarks: DIR/results.jsonl, a line a run, so that a rerun makes only those that are missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FILE = "results.jsonl"


def read(directory: Path) -> list[dict[str, Any]]:
    """The lines there, none in a new folder."""
    file = directory / FILE
    return (
        [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []
    )


def append(directory: Path, row: dict[str, Any]) -> None:
    with (directory / FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")

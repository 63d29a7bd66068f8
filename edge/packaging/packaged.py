"""What `edge package` has made, in figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Packaged:
    """`parts`: bytes by part of the app. `figures`: what else is worth telling. `notes`: one line each."""

    app: str
    output: Path
    parts: Mapping[str, int]
    figures: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        return sum(self.parts.values())

    def to_data(self) -> dict[str, Any]:
        return {**asdict(self), "output": str(self.output), "bytes": self.total}

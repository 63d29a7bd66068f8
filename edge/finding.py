"""One thing that `edge doctor` looked at."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """`what` was looked at, what was found, and what to do about it ("" when ok)."""

    what: str
    status: Status
    found: str
    hint: str = ""

    def to_data(self) -> dict[str, Any]:
        return asdict(self)

"""The table of phones; edge/targets/phones.toml says where its figures are from."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from edge.fitting.memory import Memory
from edge.targets import read_toml

FILE = Path(__file__).parents[1] / "targets" / "phones.toml"
_GIB = 1 << 30
Verdict = Literal["fits", "tight", "no", "no NPU"]


@dataclass(frozen=True)
class Phone:
    """`ram_gb` as sold, which is GiB. `share`: of it for one app, an assumption."""

    name: str
    year: int
    soc: str
    ram_gb: float
    share: float
    source: str

    @property
    def usable(self) -> int:
        """Bytes that one app may take."""
        return int(self.ram_gb * self.share * _GIB)

    def to_data(self) -> dict[str, Any]:
        return {**asdict(self), "usable_bytes": self.usable}


def load_phones() -> list[Phone]:
    """Smallest first."""
    phones = [Phone(name=name, **table) for name, table in read_toml(FILE).items()]
    return sorted(phones, key=lambda phone: (phone.usable, phone.year))


def verdict(memory: Memory, usable: int) -> Verdict:
    """tight: only once the system has dropped pages of the model's file, which it reads again when needed."""
    if memory.total <= usable:
        return "fits"
    return "tight" if memory.total - memory.file_backed <= usable else "no"

"""The SoCs of socs.toml."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from converters.errors import UnsupportedError
from edge.targets import read_toml

_FILE = Path(__file__).parents[1] / "targets" / "socs.toml"
DEFAULT = "SM8650"
"""What the emulator plays where a graph is for no SoC in particular."""


@dataclass(frozen=True)
class Soc:
    """A Qualcomm SoC; `soc_model` and `htp_arch` as onnxruntime's QNN provider numbers them."""

    name: str
    title: str
    soc_model: int
    htp_arch: int
    years: str
    devices: tuple[str, ...]

    def to_data(self) -> dict[str, Any]:
        return asdict(self)


def load_socs() -> dict[str, Soc]:
    """All by name, in the order of the file."""
    return {
        name: Soc(name=name, **{**table, "devices": tuple(table["devices"])})
        for name, table in read_toml(_FILE).items()
    }


def get_socs(names: Sequence[str]) -> tuple[Soc, ...]:
    """Those called `names`, each once; upper or lower case. UnsupportedError suggests a name that is like it."""
    known = load_socs()
    found = []
    for name in dict.fromkeys(name.upper() for name in names):
        if name not in known:
            like = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"did you mean {like[0]}? " if like else ""
            raise UnsupportedError(
                f"unknown SoC '{name}' (known: {', '.join(known)})",
                hint=f"{hint}`edge targets` lists them with their phones",
            )
        found.append(known[name])
    return tuple(found)

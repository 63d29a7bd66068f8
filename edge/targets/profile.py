"""How a target's engine is set up best, and the measurement that says so: the table `[profile]` of a target file.

    [profile]
    machine = "AMD EPYC, 2 cores, Linux 6.8 x86_64"       where it was measured
    engine = { flash_attention = true }                   what the engine is given (`EngineSettings`)
    graph = { block_size = 32, lm_head = "int8" }         what conversions make for it
    measured = [                                          one row for each value that was tried
        { setting = "batch", value = "64", against = "512", model = "random 0.9B", clock = "cpu",
          tokens = 512, prefill = [0.81, 0.80, 0.83], decode = [1.00, 0.99, 1.02], same_answers = true },
    ]

`prefill` of so many `tokens` and `decode` after them are speeds over those of `against`, taken in turns: median,
smallest, largest. The clock is "cpu" (processor time of one thread: what other programs do counts less) or "wall".
`benchmarks/profile.py` writes the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from converters.errors import UnsupportedError
from edge.engine_settings import EngineSettings


@dataclass(frozen=True)
class Trial:
    """One value beside another. `same_answers`: whether logits stay as they are but for rounding; only such a value
    is chosen for its speed."""

    setting: str
    value: str
    against: str
    model: str
    clock: str
    tokens: int
    prefill: tuple[float, float, float]
    decode: tuple[float, float, float]
    same_answers: bool


@dataclass(frozen=True)
class Profile:
    """Empty for a target that nobody measured: then the engine files' own choices hold."""

    engine: EngineSettings = field(default_factory=EngineSettings)
    graph: Mapping[str, Any] = field(default_factory=dict)
    machine: str = ""
    measured: tuple[Trial, ...] = ()


def parse(table: Mapping[str, Any]) -> Profile:
    """From the TOML table. Raises KeyError or TypeError that names what is missing or unknown."""
    known = {"engine", "graph", "machine", "measured"}
    if foreign := sorted(table.keys() - known):
        raise TypeError(f"profile has no key {foreign[0]}")
    try:
        engine = EngineSettings.from_data(table.get("engine", {}))
    except UnsupportedError as error:
        raise TypeError(f"profile.engine: {error.cause}") from None
    return Profile(
        engine,
        dict(table.get("graph", {})),
        str(table.get("machine", "")),
        tuple(trial_of(row) for row in table.get("measured", ())),
    )


def trial_of(row: Mapping[str, Any]) -> Trial:
    """From a row of `measured`."""
    return Trial(**{**row, **{name: _three(row[name], name) for name in ("prefill", "decode")}})


def _three(values: Sequence[float], name: str) -> tuple[float, float, float]:
    try:
        middle, low, high = (float(value) for value in values)
    except ValueError:
        raise TypeError(f"profile: {name} is not [median, smallest, largest]") from None
    return middle, low, high

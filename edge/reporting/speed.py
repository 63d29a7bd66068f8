"""What `edge bench` measured, read back from its JSON (format: edge.benchmark)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters.errors import UnsupportedError
from edge.charts import Series

MAX_BYTES = 16 << 20


@dataclass(frozen=True)
class Spread:
    """The middle of repeated runs, and what they lay between."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Speed:
    """One artifact. first_token: seconds by prompt length; decode: tokens per second by depth; share: of the
    memory's bandwidth by depth, empty where the bytes of a token are not known."""

    name: str
    runtime: str
    system: str
    threads: int
    runs: int
    load: Spread
    peak_bytes: int
    bandwidth: Spread | None
    first_token: Mapping[int, Spread]
    decode: Mapping[int, Spread]
    share: Mapping[int, Spread]


def read(file: Path) -> tuple[Speed, ...]:
    """Every artifact of a file that `edge bench --json` wrote. UnsupportedError when it is none."""
    try:
        if file.stat().st_size > MAX_BYTES:
            raise ValueError(f"larger than {MAX_BYTES >> 20} MiB")
        return parse(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UnsupportedError(
            f"{file} is no result of `edge bench --json`: {type(error).__name__}: {error}",
            hint="make one: edge bench BUNDLE --json > bench.json",
        ) from None


def parse(data: Mapping[str, Any]) -> tuple[Speed, ...]:
    """From `edge.benchmark.Benchmark.to_data`. Raises KeyError, TypeError or ValueError where it is not that."""
    bandwidth = data["bandwidth"] and _spread(data["bandwidth"]["bytes_per_s"])
    return tuple(
        Speed(
            name=str(each["name"]),
            runtime=str(each["runtime"]),
            system=str(data["machine"]["system"]),
            threads=int(data["threads"]),
            runs=int(data["runs"]),
            load=_spread(each["load"]["seconds"]),
            peak_bytes=int(each["memory"]["peak_bytes"]),
            bandwidth=bandwidth or None,
            first_token={int(p["tokens"]): _spread(p["first_token_s"]) for p in each["prompts"]},
            decode={int(d["depth"]): _spread(d["tokens_per_s"]) for d in each["depths"]},
            share={
                int(d["depth"]): _spread(d["bandwidth_share"])
                for d in each["depths"]
                if d["bandwidth_share"] is not None
            },
        )
        for each in data["artifacts"]
    )


def series(speeds: Sequence[Speed], measure: str, scale: float = 1.0) -> list[Series]:
    """A line for each artifact that has points of `measure` (first_token, decode or share)."""
    lines = []
    for speed in speeds:
        points: Mapping[int, Spread] = getattr(speed, measure)
        if points:
            spreads = list(points.values())
            lines.append(
                Series(
                    speed.name,
                    list(points),
                    [s.median * scale for s in spreads],
                    [s.low * scale for s in spreads],
                    [s.high * scale for s in spreads],
                )
            )
    return lines


def _spread(data: Mapping[str, Any]) -> Spread:
    return Spread(float(data["median"]), float(data["min"]), float(data["max"]))

"""Runs of live engines, in turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edge.benchmarking.bandwidth import Bandwidth
from edge.benchmarking.subject import Live
from edge.progress import Progress


@dataclass(frozen=True)
class Run:
    """One timed run. `waited`: how long the engine was ready and had no core. `bandwidth`: bytes per second that
    were read from memory just before."""

    seconds: float
    waited: float
    bandwidth: float


def take_turns(
    live: Sequence[Live], runs: int, memory: Bandwidth, progress: Progress, **request: Any
) -> list[tuple[Run, ...]]:
    """`runs` times: each engine in its turn, so that what else the machine does falls on all of them.

    One run of each goes before and does not count. Returns the runs of each engine, in their order.
    """
    for each in live:
        each.process.ask(**request)
    done: list[list[Run]] = [[] for _ in live]
    for _ in range(runs):
        for own, each in zip(done, live, strict=True):
            bandwidth = memory.measure()
            took = each.process.ask(**request)
            own.append(Run(took["seconds"], took["waited_seconds"], bandwidth))
            progress.advance(1)
    return [tuple(own) for own in done]

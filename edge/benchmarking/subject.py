"""An artifact that is being measured: what it said of itself, and the process that it lives in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge.benchmarking.engine_process import EngineProcess
from edge.benchmarking.spread import Spread
from edge.benchmarking.traffic import Traffic, traffic
from edge.progress import Progress
from edge.runtimes import EngineSettings


@dataclass(frozen=True)
class Contender:
    """An artifact and how its engine is set up; `context_length` None: the artifact's own."""

    path: Path
    name: str
    context_length: int | None
    settings: EngineSettings


@dataclass(frozen=True)
class Subject:
    """`bytes_before`: peak memory of its process before the artifact was loaded (Python, the engine's library)."""

    name: str
    runtime: str
    settings: EngineSettings
    context_length: int
    bytes_before: int
    traffic: Traffic | None


@dataclass(frozen=True)
class Live:
    """`process` is to be closed by whoever got this."""

    subject: Subject
    process: EngineProcess


def load(
    contenders: Sequence[Contender], *, seed: int, runs: int, progress: Progress
) -> tuple[list[Live], list[Spread]]:
    """Load each contender `runs` times, in turns, each time in a fresh process; the last ones stay alive.

    Returns them with the seconds from opening to the first token. The first load of a file may read the disk,
    the others find it in the page cache: the spread shows it.
    """
    known = [traffic(each.path, each.settings.kv_type or "f16") for each in contenders]
    seconds: list[list[float]] = [[] for _ in contenders]
    live: list[Live] = []
    progress.stage("loading", runs * len(contenders), "loads")
    try:
        for run in range(runs):
            for i, each in enumerate(contenders):
                process = EngineProcess(
                    each.path, context_length=each.context_length, settings=each.settings, seed=seed
                )
                said = process.loaded
                seconds[i].append(float(said["seconds"]))
                progress.advance(1)
                if run < runs - 1:
                    process.close()
                    continue
                subject = Subject(
                    each.name,
                    said["runtime"],
                    each.settings,
                    said["context_length"],
                    said["bytes_before"],
                    known[i],
                )
                live.append(Live(subject, process))
    except BaseException:
        for opened in live:
            opened.process.close()
        raise
    return live, [Spread(tuple(samples)) for samples in seconds]

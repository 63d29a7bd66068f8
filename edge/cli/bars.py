"""Progress on a terminal: one live line for the running stage, a plain line for each that has ended."""

from __future__ import annotations

import sys
import threading
import time

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from edge.cli.console import Stage, size
from edge.machine import peak_memory


class Bars:
    """Stage, bar, bytes, speed, peak memory, time left; drawn ten times a second at most.

    An ended stage leaves its summary line, so that the scrollback tells the same as a log does.
    """

    def __init__(self) -> None:
        # rich reads NO_COLOR and the width of the terminal by itself.
        self._console = Console(file=sys.stderr, highlight=False)
        self._lock = threading.Lock()
        self._live: Live | None = None
        self._stage: Stage | None = None

    def stage(self, name: str, total: int | None = None, unit: str = "bytes") -> None:
        with self._lock:
            self._end()
            self._stage = Stage(name, total, unit)
            self._live = Live(
                get_renderable=self._render, console=self._console, refresh_per_second=10, transient=True
            )
            self._live.start()

    def advance(self, n: int) -> None:
        with self._lock:
            if self._stage is not None:
                self._stage.count += n

    def note(self, text: str) -> None:
        with self._lock:
            self._console.print(Text(f"note: {text}"))

    def done(self) -> None:
        with self._lock:
            self._end()

    def _end(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
        if self._stage is not None:
            self._console.print(Text(self._stage.summary()))
            self._stage = None

    def _render(self) -> Table:
        row = Table.grid(padding=(0, 1))
        stage = self._stage
        if stage is None:
            return row
        bar = ProgressBar(
            total=float(stage.total) if stage.total else None,
            completed=stage.count,
            width=20,
            pulse=not stage.total,
            animation_time=time.monotonic(),
        )
        figures = [stage.amount(), stage.speed(), f"peak {size(peak_memory())}", stage.left()]
        row.add_row(Text(stage.name), bar, *(Text(f) for f in figures if f))
        return row

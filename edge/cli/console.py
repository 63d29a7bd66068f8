"""How the commands talk: data on stdout, talk on stderr, everything readable without colour.

stdout carries a command's result and nothing else, so that it can be piped; stages, notes and errors go to
stderr. Bars are drawn on a terminal only; anything else gets plain lines.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from edge.progress import Progress, Silent
from edge.units import duration as duration
from edge.units import size as size
from quant.distill.launch import place

# A log that is not watched needs a sign of life, not a bar: one line in this many seconds.
LINE_SECONDS = 10.0


def write_json(data: Any) -> None:
    """The result of a command as one JSON document on stdout."""
    print(json.dumps(data, indent=2, ensure_ascii=False))


def write(text: str = "") -> None:
    """A line of the result on stdout."""
    print(text)


def say(text: str) -> None:
    """A line of talk on stderr."""
    print(text, file=sys.stderr, flush=True)


def fail(cause: str, hint: str) -> None:
    """The two lines of an error. Line breaks inside are flattened: the form holds whatever a library said."""
    say(f"{_label('error')}: {clean(' '.join(cause.split()))}")
    say(f"{_label('hint')}: {clean(' '.join(hint.split()))}")


def clean(text: str) -> str:
    """Text from a file, safe for a terminal: control characters are shown as escapes, not obeyed."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Aligned columns as lines, two spaces between, no borders: readable, and easy on awk."""
    cells = [list(header), *([str(c) for c in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    return ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells]


def proof_lines(proof: Mapping[str, Any] | None) -> list[str]:
    """What a proof.json says, one line a variant, and one for each failure."""
    if proof is None:
        return ["not proven"]
    lines = []
    for name, result in proof["variants"].items():
        figures = _figures(result)
        verdict = "proven" if result["passed"] else "PROOF FAILED"
        where = [f"in {result['runtime']}"] if "runtime" in result else []
        lines.append(f"{name}: {'; '.join([' '.join([verdict, *where]), *figures])}")
        for encoder, error in result.get("encoders", {}).items():
            lines.append(f"  {encoder} encoder: features {error['relative_error']:.2%} off the checkpoint's")
        for prompt, found in result.get("prompts", {}).items():
            left_out = f"not proven, {found['tokens']} tokens are longer than the context"
            lines.append(f"  with {prompt}: {'; '.join(_figures(found)) or left_out}")
        for adapter, found in result.get("adapters", {}).items():
            effect = f"KL {found['effect']['kl_mean']:.2g} away from the model without it"
            lines.append(f"  adapter {adapter}: {'; '.join([effect, *_figures(found)])}")
        if "approximate" in result:
            lines.append(f"  approximate, not the same model: {result['approximate']}")
        lines += [f"  {failure}" for failure in result["failures"]]
    return lines


def _figures(result: Mapping[str, Any]) -> list[str]:
    return [
        f"{question} KL {result[question]['kl_mean']:.2g}, top-1 {result[question]['top1']:.1%}"
        for question in ("fidelity", "approximation", "quality")
        if question in result
    ] + [
        f"{title} {result[key]:{form}}"
        for key, title, form in (
            ("max_error", "largest difference", ".2g"),
            ("relative_error", "relative", ".2g"),
            ("same_label", "same label", ".1%"),
            ("worst_cosine", "least cosine of a text's mean", ".4f"),
        )
        if key in result
    ]


def stderr_is_terminal() -> bool:
    return sys.stderr.isatty() and os.environ.get("TERM", "") != "dumb"


def colour() -> bool:
    """https://no-color.org: NO_COLOR set and not empty means none."""
    return stderr_is_terminal() and not os.environ.get("NO_COLOR")


_opened: list[Progress] = []


def open_progress(*, quiet: bool = False) -> Progress:
    """The bar on a terminal, plain lines elsewhere, nothing when `quiet` and from launched processes but the first.

    `main` ends it, whatever happens.
    """
    progress: Progress
    if quiet or place().rank:
        progress = Silent()
    elif stderr_is_terminal():
        from edge.cli.bars import Bars

        progress = Bars()
    else:
        progress = Lines()
    _opened.append(progress)
    return progress


def end_progress() -> None:
    """End what `open_progress` gave: a live line that nobody ends leaves a terminal without its cursor."""
    while _opened:
        _opened.pop().done()


class Stage:
    """The figures of one stage: what is done, how fast, and what it has cost."""

    def __init__(self, name: str, total: int | None, unit: str) -> None:
        self.name, self.total, self.unit = name, total, unit
        self.count = 0
        self.started = time.monotonic()

    def amount(self) -> str:
        if self.unit != "bytes":
            return f"{self.count}/{self.total} {self.unit}" if self.total else f"{self.count} {self.unit}"
        return f"{size(self.count)} of {size(self.total)}" if self.total else size(self.count)

    def speed(self) -> str:
        per_second = self.count / max(time.monotonic() - self.started, 1e-3)
        return f"{per_second / 1e6:.0f} MB/s" if self.unit == "bytes" else f"{per_second:.1f} {self.unit}/s"

    def left(self) -> str:
        """Time left at the speed so far; "" when that cannot be told."""
        if not self.total or not self.count or self.count >= self.total:
            return ""
        seconds = (time.monotonic() - self.started) * (self.total - self.count) / self.count
        return f"{duration(seconds)} left"

    def summary(self) -> str:
        from edge.machine import peak_memory

        figures = [duration(time.monotonic() - self.started)]
        if self.count:
            done = size(self.count) if self.unit == "bytes" else f"{self.count} {self.unit}"
            figures = [done, self.speed(), *figures]
        return f"{self.name}: {', '.join(figures)}, peak memory {size(peak_memory())}"


class Lines:
    """Progress as plain lines: one when a stage ends, and one every ten seconds of a long one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stage: Stage | None = None
        self._said = 0.0

    def stage(self, name: str, total: int | None = None, unit: str = "bytes") -> None:
        with self._lock:
            self._end()
            self._stage = Stage(name, total, unit)
            self._said = time.monotonic()

    def advance(self, n: int) -> None:
        with self._lock:
            stage = self._stage
            if stage is None:
                return
            stage.count += n
            if time.monotonic() - self._said >= LINE_SECONDS:
                self._said = time.monotonic()
                say(", ".join(filter(None, (f"{stage.name}: {stage.amount()}", stage.speed(), stage.left()))))

    def note(self, text: str) -> None:
        with self._lock:
            say(f"note: {text}")

    def done(self) -> None:
        with self._lock:
            self._end()

    def _end(self) -> None:
        if self._stage is not None:
            say(self._stage.summary())
            self._stage = None


def _label(word: str) -> str:
    if not colour():
        return word
    return f"\x1b[1;31m{word}\x1b[0m" if word == "error" else f"\x1b[1;36m{word}\x1b[0m"

"""What a person can be told, as cases: each triggers one message through the real command line or API.

A case is three lines in a file of this folder:

    @case
    def unknown_target(world: World) -> None:
        world.edge("convert", world.tiny("phi4"), "--target", "toaster")

and its text lies in tests/snapshots/<file>/unknown_target.txt once `pytest tests/test_messages.py
--update-snapshots` has written it; look at the difference before you commit it.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from converters.errors import EdgeError
from edge import cli
from edge.cli import console

ROOT = Path(__file__).parents[2]
CASES: dict[str, Callable[[World], None]] = {}

# What differs from run to run and from machine to machine.
_UNSTABLE = [
    (re.compile(r"\b\d+\.\d s\b"), "# s"),
    (re.compile(r"\b\d+(\.\d)? (\S+/s)\b"), r"# \2"),
    (re.compile(r"\b\d+(\.\d)? [kMGT]?B\b"), "# B"),
    (re.compile(r"KL [\d.e+-]*\d"), "KL #"),
    (re.compile(r"(?<!-)\b(loss|kl|balance|task|hidden|filters|consistency) \d[\d.e+-]*"), r"\1 #"),
    (re.compile(r"top-1 [\d.]+%"), "top-1 #%"),
    (re.compile(r"agreement [\d.]+\d"), "agreement #"),
    (re.compile(r"waited for a core \d+%"), "waited for a core #%"),
    (re.compile(r"(onnxruntime|onnxruntime-genai|llama-cpp-python) \d[\w.]*"), r"\1 #"),
    (re.compile(r"\b\d+\.\d+(?=(, before .*)? nats)"), "#"),
    (re.compile(r"\[Errno \d+\]"), "[Errno #]"),
    (re.compile(r"127\.0\.0\.1(:\d+)?"), "SERVER"),
    (re.compile(r"(?<!-)\bport \d{5}\b"), "port #"),
    (re.compile(r"(# B) {2,}"), r"\1  "),
    (re.compile(r"\b[0-9a-f]{64}\b"), "SHA256"),
    (re.compile(r"has \d+ bytes, the manifest says \d+"), "has # bytes, the manifest says #"),
    (re.compile(r"\b(edge|gguf|numpy|onnx)(:?) \d+\.\d[\w.]*"), r"\1\2 #"),
]


def case(function: Callable[[World], None]) -> Callable[[World], None]:
    """Register a case as <module>/<function>."""
    add(f"{function.__module__.rpartition('.')[2]}/{function.__name__}", function)
    return function


def add(name: str, function: Callable[[World], None]) -> None:
    """Register a case under a name: for cases made from a table."""
    name = re.sub(r"[^a-z0-9_/.-]+", "-", name.lower()).strip("-")
    assert name not in CASES, f"two cases are called {name}"
    CASES[name] = function


class World:
    """An empty working directory of its own, and what was said in it."""

    def __init__(self, directory: Path, tiny: Callable[..., Path]) -> None:
        self.path = directory
        self._tiny = tiny
        self._names = {str(directory): "DIR", str(ROOT): "REPO"}
        self._said: list[str] = []
        self.sites: set[tuple[str, int]] = set()

    def tiny(self, name: str = "phi4", **overrides: Any) -> str:
        """A random checkpoint as ./<name>, shared by the session: not to be changed."""
        link, target = self.path / name, self._tiny(name, **overrides).resolve()
        if not link.exists():
            link.symlink_to(target)
        self._names[str(target)] = f"DIR/{name}"
        return name

    def copy(self, name: str = "phi4", **overrides: Any) -> Path:
        """A copy of it as ./checkpoint, to be damaged."""
        shutil.copytree(self._tiny(name, **overrides), self.path / "checkpoint")
        return self.path / "checkpoint"

    def heading(self, text: str) -> None:
        """A line of its own before what comes, in a case of many messages."""
        self._said.append(f"# {text}")

    def edge(self, *arguments: str | Path, stdin: bytes | None = b"") -> int:
        """Run a command line in this process. `stdin`: what is piped in, None for a terminal."""
        out, told = io.StringIO(), io.StringIO()
        words = [str(a) for a in arguments]
        shown = [w if len(w) < 80 else f"{w[:40]}..." for w in words]
        keyboard, sys.stdin = sys.stdin, io.TextIOWrapper(io.BytesIO(stdin or b""))
        try:
            sys.stdin.isatty = lambda: stdin is None  # type: ignore[method-assign]  # of this one object
            with (
                self._watch(),
                contextlib.redirect_stdout(out),
                contextlib.redirect_stderr(told),
                # How often a slow machine gives a sign of life.
                mock.patch.object(console, "LINE_SECONDS", 1e9),
            ):
                code = cli.main(words)
        finally:
            sys.stdin = keyboard
        self._said += [f"$ edge {' '.join(shown)}", out.getvalue() + told.getvalue() + f"[exit {code}]"]
        return code

    def quietly(self, *arguments: str | Path) -> None:
        """Run a command line that is not what the case is about; it must succeed."""
        before = len(self._said)
        code = self.edge(*arguments)
        said = self._said[before:]
        del self._said[before:]
        assert code == 0, said

    def call(self, function: Callable[..., object], *arguments: Any, **options: Any) -> None:
        """Call what no command reaches on a sound machine; it must raise an EdgeError."""
        told = io.StringIO()
        try:
            with self._watch(), contextlib.redirect_stdout(io.StringIO()):
                function(*arguments, **options)
        except EdgeError as error:
            with contextlib.redirect_stderr(told):
                console.fail(error.cause, error.hint)
            self._said.append(told.getvalue() + f"[exit {error.exit_code}]")
        else:
            raise AssertionError(f"{function} raised nothing")

    def text(self) -> str:
        """All that was said, with the names of places and the measured figures taken out."""
        text = "\n".join(self._said) + "\n"
        for path in sorted(self._names, key=len, reverse=True):
            text = text.replace(path, self._names[path])
        for pattern, stand_in in _UNSTABLE:
            text = pattern.sub(stand_in, text)
        return text

    @contextlib.contextmanager
    def _watch(self) -> Iterator[None]:
        """Note the lines of the project that are on the stack whenever an EdgeError is made."""
        original = EdgeError.__init__

        def watched(error: EdgeError, cause: str, *, hint: str) -> None:
            original(error, cause, hint=hint)
            frame = sys._getframe(1)
            while frame is not None:
                self.sites.add((frame.f_code.co_filename, frame.f_lineno))
                frame = frame.f_back

        before = Path.cwd()
        os.chdir(self.path)
        EdgeError.__init__ = watched  # type: ignore[method-assign]  # for the length of one case
        try:
            yield
        finally:
            EdgeError.__init__ = original  # type: ignore[method-assign]
            os.chdir(before)

"""An engine in a process of its own, asked through pipes.

Run as `python -m edge.evaluation.child ARTIFACT LENGTH TASKS THREADS PARENT`, the last the id of the parent process.
One JSON line a request on stdin, one JSON line an answer on stdout; logits follow their line as raw float32. An
answer with `error` names the EdgeError to raise. Nothing else may write to stdout: what engines print goes to stderr.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from converters.errors import EdgeError, UnsupportedError
from edge.evaluation.answers import Answerer
from edge.evaluation.tokens import first_token
from edge.runtimes import Runtime, open_runtime
from edge.runtimes.isolated import die_with

Reply = tuple[dict[str, Any], Any]
"""The JSON answer, and the array whose bytes follow it (None: none)."""


def main(artifact: str, length: str, task_context: str, threads: str, parent: str) -> None:
    die_with(int(parent))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        runtime = _open(Path(artifact), int(length), int(task_context), int(threads) or None)
    except (EdgeError, OSError, MemoryError) as error:
        _send(out, _failure(error), None)
        return
    try:
        _send(out, _described(Path(artifact), runtime), None)
        work = _Work(runtime)
        for line in sys.stdin.buffer:
            for reply in work.answer(json.loads(line)):
                _send(out, *reply)
    finally:
        runtime.close()


def _open(artifact: Path, length: int, task_context: int, threads: int | None) -> Runtime:
    """With room for windows of `length` and, as far as the artifact allows it, `task_context` tokens."""
    try:
        return open_runtime(artifact, context_length=max(length, task_context), threads=threads, exact=True)
    except UnsupportedError:
        if task_context <= length:
            raise
        runtime = open_runtime(artifact, threads=threads, exact=True)  # its own context, which is less
        if runtime.context_length < length:
            runtime.close()
            raise
        return runtime


def _described(artifact: Path, runtime: Runtime) -> dict[str, Any]:
    return {
        "runtime": runtime.name,
        "vocab_size": runtime.vocab_size,
        "bos": first_token(artifact, runtime.dialect()),
    }


class _Work:
    """The requests that an engine answers, by the name in `do`."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._answerer: Answerer | None = None
        self._known: dict[str, Callable[..., Iterator[Reply]]] = {
            "encode": self._encode,
            "pieces": self._pieces,
            "windows": self._windows,
            "item": self._item,
        }

    def answer(self, request: dict[str, Any]) -> Iterator[Reply]:
        try:
            yield from self._known[request.pop("do")](**request)
        except (EdgeError, OSError, MemoryError) as error:
            yield _failure(error), None

    def _encode(self, text: str) -> Iterator[Reply]:
        yield {"ids": self._runtime.encode(text, special=False)}, None

    def _pieces(self, ids: list[int]) -> Iterator[Reply]:
        yield {"pieces": [self._runtime.token_bytes(i).decode("latin-1") for i in ids]}, None

    def _windows(self, windows: list[list[int]], first: int) -> Iterator[Reply]:
        """Logits at `first` to length - 2 of each window."""
        for ids in windows:
            logits = self._runtime.teacher_forced(ids, first=first)[:-1]
            yield {"shape": logits.shape}, np.ascontiguousarray(logits, np.float32)

    def _item(self, item: dict[str, Any]) -> Iterator[Reply]:
        if self._answerer is None:
            self._answerer = Answerer(self._runtime)
        yield self._answerer.answer(item), None


def _failure(error: BaseException) -> dict[str, Any]:
    if isinstance(error, EdgeError):
        # The engines speak of the option that chat and convert have for it.
        hint = error.hint.replace("--context", "--length")
        return {"error": type(error).__name__, "cause": error.cause, "hint": hint}
    cause = f"the engine could not go on: {str(error) or type(error).__name__}"
    return {"error": "MachineError", "cause": cause, "hint": "free memory and run it again"}


def _send(out: BinaryIO, answer: dict[str, Any], data: Any) -> None:
    out.write(json.dumps(answer).encode() + b"\n")
    if data is not None:
        out.write(data.data)
    out.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])

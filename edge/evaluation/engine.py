"""The parent's side of `edge.evaluation.child`: one engine process, asked through pipes.

Ends with the `with` block however that ends; on Linux also with a parent that is killed, elsewhere at the next
request that does not come.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters import errors
from edge.evaluation.windows import Windows
from edge.runtimes.isolated import ended

_GRACE_SECONDS = 10.0


class Engine:
    """`artifact` in its own runtime, with a float32 KV cache where the runtime has the choice.

    There is room for windows of `length` tokens and, where the artifact allows so many, for `task_context`.
    runtime: the engine and its version. bos: what its tokenizer puts before a text. Raises the EdgeError that the
    engine raised; UnsupportedError when it died, MachineError when it was killed.
    """

    def __init__(
        self, artifact: Path, *, name: str, length: int = 0, task_context: int = 0, threads: int | None = None
    ) -> None:
        self.path, self.name = artifact, name
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  # closed by `close`
        numbers = [str(n) for n in (length, task_context, threads or 0, os.getpid())]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "edge.evaluation.child", str(artifact), *numbers],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
        )
        try:
            described = self._receive()
        except BaseException:
            self.close(at_once=True)
            raise
        self.runtime: str = described["runtime"]
        self.vocab_size: int = described["vocab_size"]
        self.bos: int | None = described["bos"]

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close(at_once=kind is not None)

    def encode(self, text: str) -> list[int]:
        """Token ids of `text` without BOS; a special token's text in it stays text."""
        ids: list[int] = self._ask(do="encode", text=text)["ids"]
        return ids

    def pieces(self, ids: list[int]) -> list[bytes]:
        """The bytes of each token."""
        return [piece.encode("latin-1") for piece in self._ask(do="pieces", ids=ids)["pieces"]]

    def item(self, item: dict[str, Any]) -> dict[str, Any]:
        """The answer to a task's item; see `edge.evaluation.answers`."""
        return self._ask(do="item", item=item)

    def logits(self, windows: Windows) -> Iterator[NDArray[np.float32]]:
        """Of each window the logits of its scored predictions, float32 [scored, vocab], in one reused array.

        The engine begins at once and works ahead by one window. Nothing else may be asked before the last has come.
        """
        self._send(do="windows", windows=windows.ids.tolist(), first=windows.first)
        return self._windows(np.empty((windows.scored, self.vocab_size), np.float32), len(windows.ids))

    def _windows(self, logits: NDArray[np.float32], count: int) -> Iterator[NDArray[np.float32]]:
        view = logits.data.cast("B")
        for _ in range(count):
            self._receive()
            self._fill(view)
            yield logits

    def close(self, *, at_once: bool = False) -> None:
        """End the process: by the end of its input, or `at_once`."""
        if at_once:
            self._process.kill()
        assert self._process.stdin
        assert self._process.stdout
        try:
            self._process.stdin.close()
            self._process.wait(_GRACE_SECONDS)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        finally:
            self._process.stdout.close()
            self._stderr.close()

    def _ask(self, **request: Any) -> dict[str, Any]:
        self._send(**request)
        return self._receive()

    def _send(self, **request: Any) -> None:
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line.endswith(b"\n"):
            raise self._ended()
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            kind: type[errors.EdgeError] = getattr(errors, answer["error"])
            raise kind(answer["cause"], hint=answer["hint"])
        return answer

    def _fill(self, view: memoryview) -> None:
        assert self._process.stdout
        done = 0
        while done < len(view):
            count = self._process.stdout.readinto1(view[done:])  # type: ignore[attr-defined]  # a BufferedReader
            if not count:
                raise self._ended()
            done += count

    def _ended(self) -> errors.EdgeError:
        code = self._process.wait()
        self._stderr.seek(0)
        return ended(self.path, code, self._stderr.read().decode("utf-8", "replace"))

"""The asking side of `edge.benchmarking.worker`."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from converters import errors
from converters.errors import EdgeError, MachineError
from edge.runtimes import EngineSettings
from edge.runtimes.isolated import ended


class EngineProcess:
    """A live worker with `artifact` loaded; `loaded` is what it said of itself. Ends with `close`, or with us."""

    def __init__(
        self, artifact: Path, *, context_length: int | None, settings: EngineSettings, seed: int
    ) -> None:
        """Loads. Raises what `open_runtime` raises, and UnsupportedError or MachineError when the process dies."""
        self._artifact = artifact
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  # until close
        # A session of its own: Ctrl-C is for us, and we end it.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "edge.benchmarking.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            encoding="utf-8",
            start_new_session=True,
        )
        try:
            self.loaded = self.ask(
                artifact=str(artifact),
                context_length=context_length,
                settings=settings.to_data(),
                seed=seed,
            )
        except BaseException:
            self.close()
            raise

    def ask(self, **request: Any) -> Mapping[str, Any]:
        """The worker's answer to one request."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            print(json.dumps(request), file=process.stdin, flush=True)
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise self._died()
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            kind: type[EdgeError] = getattr(errors, answer["error"])
            raise kind(answer["cause"], hint=answer["hint"])
        if "machine" in answer:
            raise MachineError(
                f"the engine that runs {self._artifact.name} could not go on: {answer['machine']}",
                hint="free memory, or choose a smaller --context",
            )
        return answer

    def _died(self) -> EdgeError:
        code = self._process.wait()
        self._said.seek(0)
        return ended(self._artifact, code, self._said.read().decode("utf-8", "replace"))

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._said.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

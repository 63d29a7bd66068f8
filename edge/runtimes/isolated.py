"""What an engine makes of an artifact, measured in a process of its own.

The proof must not take the converter's memory or life with it: engines map whole models, and native code that
meets a damaged artifact may crash. Run as `python -m edge.runtimes.isolated ARTIFACT CONTEXT FD PARENT`; what to
run comes on stdin, the logits go to the open file FD.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.errors import EdgeError, MachineError, UnsupportedError

# The proof's numbers go into the bundle, so the thread count that they are computed with is fixed.
PROOF_THREADS = 2
_PR_SET_PDEATHSIG = 1
"""linux/prctl.h"""


@dataclass(frozen=True)
class Measured:
    """`logits`: float32 [len(ids), vocab], memory-mapped from an unnamed file.

    text_ids: what the artifact's own tokenizer makes of the text; stop_ids: where the runtime would stop.
    """

    logits: NDArray[np.float32]
    runtime: str
    text_ids: list[int]
    stop_ids: frozenset[int]


def teacher_forced(
    artifact: Path,
    ids: Sequence[int],
    work: Path,
    *,
    context_length: int,
    text: str = "",
    adapter: str | None = None,
    media: Sequence[tuple[str, Path]] = (),
) -> Measured:
    """Logits at every position of `ids`, with `adapter`. `work` is a directory whose disk holds them, without a name.

    media: (kind, file) of what the prompt begins with, before `ids`.

    Raises UnsupportedError when the engine refuses the artifact or dies of it, MachineError when it was killed
    or ran out of memory or disk.
    """
    asked = json.dumps(
        {
            "ids": [int(i) for i in ids],
            "text": text,
            "adapter": adapter,
            "media": [(kind, str(file)) for kind, file in media],
        }
    )
    # Without a name the file is gone with its last reader, however this process ends.
    with tempfile.TemporaryFile(dir=work) as made:
        numbers = [str(n) for n in (context_length, made.fileno(), os.getpid())]
        command = [sys.executable, "-m", __name__, str(artifact), *numbers]
        done = subprocess.run(
            command, input=asked, capture_output=True, text=True, check=False, pass_fds=[made.fileno()]
        )
        answer = _answer(artifact, done)
        logits = np.memmap(made, np.float32, "r", shape=tuple(answer["shape"]))
    return Measured(logits, answer["runtime"], answer["text_ids"], frozenset(answer["stop_ids"]))


def ended(artifact: Path, code: int, stderr: str) -> EdgeError:
    """What to tell of an engine whose process is gone: its exit code, negative for a signal, and its last words."""
    if code == -signal.SIGKILL:
        return MachineError(
            f"the engine that runs {artifact.name} was killed, most likely for want of memory",
            hint="close other programs and run it again, or choose a smaller --context",
        )
    said = stderr.strip().splitlines() or ["no message"]
    told = [line.removeprefix("error: ") for line in said if line.startswith("error: ")]
    return UnsupportedError(
        f"the engine that runs {artifact.name} ended with code {code}: {(told or said)[-1]}",
        hint="run `edge doctor`; if it is content, this is a bug worth reporting",
    )


def _answer(artifact: Path, done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    lines = done.stdout.splitlines()
    if done.returncode != 0 or not lines:
        raise ended(artifact, done.returncode, done.stderr)
    answer: dict[str, Any] = json.loads(lines[-1])
    if "machine" in answer:
        raise MachineError(
            f"the engine that runs {artifact.name} could not go on: {answer['machine']}",
            hint="free memory, and space in the directory for temporary files (TMPDIR), and run it again",
        )
    if "cause" in answer:
        raise UnsupportedError(answer["cause"], hint=answer["hint"])
    return answer


def _main(artifact: str, context_length: str, made: str, parent: str) -> None:
    die_with(int(parent))
    try:
        answer = _measure(Path(artifact), int(context_length), int(made), json.load(sys.stdin))
    except EdgeError as error:
        answer = {"cause": error.cause, "hint": error.hint}
    except (OSError, MemoryError) as error:
        answer = {"machine": str(error) or type(error).__name__}
    print(json.dumps(answer))


def _measure(artifact: Path, context_length: int, made: int, asked: dict[str, Any]) -> dict[str, Any]:
    from edge.runtimes import open_runtime
    from edge.runtimes.protocol import Adaptable, Perceiving

    runtime = open_runtime(artifact, context_length=context_length, threads=PROOF_THREADS, exact=True)
    try:
        if asked["adapter"] is not None:
            assert isinstance(runtime, Adaptable)
            runtime.use_adapter(asked["adapter"])
        before: list[int] = []
        if asked["media"]:
            assert isinstance(runtime, Perceiving)
            media = [runtime.read(kind, Path(file)) for kind, file in asked["media"]]
            runtime.show(media)
            before = [token for medium in media for token in medium.ids]
        logits = runtime.teacher_forced([*before, *asked["ids"]], first=len(before))
        with os.fdopen(made, "wb") as file:
            file.write(np.ascontiguousarray(logits, np.float32).data)
        return {
            "runtime": runtime.name,
            "shape": logits.shape,
            "text_ids": runtime.encode(asked["text"], special=False),
            "stop_ids": sorted(runtime.dialect().stop_ids),
        }
    finally:
        runtime.close()


def die_with(parent: int) -> None:
    """Where the system can do it (Linux): no engine outlives a converter that was killed."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was faster
        raise SystemExit(MachineError.exit_code)


if __name__ == "__main__":
    _main(*sys.argv[1:])

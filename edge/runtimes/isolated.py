"""Teacher-forced logits from an engine in a process of its own.

The proof must not take the converter's memory or life with it: engines map whole models, and native code that
meets a damaged artifact may crash. Run as `python -m edge.runtimes.isolated ARTIFACT IDS.npy LOGITS.npy ...`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from converters.errors import EdgeError, MachineError, UnsupportedError

# The proof's numbers go into the bundle, so the thread count that they are computed with is fixed.
PROOF_THREADS = 2


@dataclass(frozen=True)
class Measured:
    """`logits`: float32 [len(ids), vocab], memory-mapped from a file in the work directory."""

    logits: NDArray[np.float32]
    runtime: str


def teacher_forced(artifact: Path, ids: Sequence[int], work: Path, *, context_length: int) -> Measured:
    """Logits at every position of `ids`. `work` is a directory for the two files that carry the data.

    Raises the engine's own EdgeError, or MachineError when the engine's process died.
    """
    given, made = work / "ids.npy", work / "logits.npy"
    np.save(given, np.asarray(ids, dtype=np.int64))
    command = [sys.executable, "-m", __name__, str(artifact), str(given), str(made), str(context_length)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    if done.returncode != 0 or not lines:
        said = done.stderr.strip().splitlines() or ["no message"]
        told = [line.removeprefix("error: ") for line in said if line.startswith("error: ")]
        raise MachineError(
            f"the engine that runs {artifact.name} ended with code {done.returncode}: {(told or said)[-1]}",
            hint="run `edge doctor`; if it is content, this is a bug worth reporting",
        )
    answer = json.loads(lines[-1])
    if "cause" in answer:
        raise UnsupportedError(answer["cause"], hint=answer["hint"])
    return Measured(np.load(made, mmap_mode="r"), answer["runtime"])


def _main(artifact: str, given: str, made: str, context_length: str) -> None:
    from edge.runtimes import open_runtime

    try:
        runtime = open_runtime(
            Path(artifact), context_length=int(context_length), threads=PROOF_THREADS, exact=True
        )
        ids = [int(i) for i in np.load(given)]
        np.save(made, runtime.teacher_forced(ids))
        name = runtime.name
        runtime.close()
    except EdgeError as error:
        print(json.dumps({"cause": error.cause, "hint": error.hint}))
        return
    print(json.dumps({"runtime": name}))


if __name__ == "__main__":
    _main(*sys.argv[1:])

"""Peak memory of an engine that fills its context: `python -m benchmarks.engine_peak ARTIFACT CONTEXT`, in bytes.

A module of its own because what it imports counts: as in `edge chat` and `edge bench`, the engine and no more.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

DECODED = 3


def peak(artifact: Path, context: int) -> int:
    """Peak resident bytes of a process that runs a prompt of all but DECODED tokens, and then those."""
    command = [sys.executable, "-m", __name__, str(artifact.resolve()), str(context)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    return int(done.stdout.split()[-1])


def _run(artifact: Path, context: int) -> int:
    import numpy as np

    from edge import machine
    from edge.runtimes import open_runtime

    runtime = open_runtime(artifact, context_length=context)
    ids = np.random.default_rng(0).integers(runtime.vocab_size, size=context).tolist()
    runtime.append(ids[:-DECODED])
    for token in ids[-DECODED:]:
        runtime.append([token])
    return machine.peak_memory()


if __name__ == "__main__":
    print(_run(Path(sys.argv[1]), int(sys.argv[2])))

"""Kill conversions at random moments: `python -m tests.edge.kill_loop CHECKPOINT OUTPUT KILLS SEED`.

The parent imports everything once and forks, so that a kill hits the work and not the imports. After each kill
the place must hold the old bundle, whole, or nothing. Prints one JSON line.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from edge import bundle as bundles
from edge.convert import ConvertRequest, convert, plan
from edge.progress import Silent


def work(checkpoint: str, output: Path) -> None:
    convert(plan(ConvertRequest(checkpoint, ("android", "cpu"), output=output, proof=False)), Silent())


def child(checkpoint: str, output: Path) -> int:
    pid = os.fork()
    if pid == 0:
        work(checkpoint, output)
        os._exit(0)
    return pid


def main(checkpoint: str, output: Path, kills: int, seed: int) -> None:
    rng = random.Random(seed)
    durations = []
    for _ in range(3):
        began = time.perf_counter()
        os.waitpid(child(checkpoint, output), 0)
        durations.append(time.perf_counter() - began)
    duration = sorted(durations)[1]
    whole = bundles.load(output).manifest
    spare = Path(tempfile.mkdtemp()) / "spare"
    shutil.copytree(output, spare)
    killed = empty = kept = 0
    for i in range(kills):
        shutil.rmtree(output, ignore_errors=True)
        fresh = i % 2 == 1
        if not fresh:
            shutil.copytree(spare, output)
        pid = child(checkpoint, output)
        time.sleep(rng.uniform(0, duration))
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status) or status == 0, f"kill {i}: the conversion failed by itself"
        killed += os.WIFSIGNALED(status)
        if output.exists():
            bundle = bundles.load(output)
            assert bundle.manifest == whole, f"kill {i}: another manifest"
            assert bundles.damage(bundle) == [], f"kill {i}: {bundles.damage(bundle)}"
            kept += not fresh and os.WIFSIGNALED(status)
        else:
            assert fresh, f"kill {i}: the old bundle is gone"
            empty += 1
    shutil.rmtree(spare.parent)
    work(checkpoint, output)
    assert bundles.load(output).manifest == whole
    left = sorted(p.name for p in output.parent.iterdir())
    print(json.dumps({"killed": killed, "kept_old": kept, "nothing_there": empty, "left": left}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))

"""What a calibration takes, beside what was said before it: `python -m benchmarks.calibrate [--model NAME_OR_DIR]`.

Runs `edge convert --calibrate --no-proof` in a process of its own with an empty cache, and prints stated and measured
time and memory. The shares it prints are where edge.calibration_cost.EFFICIENCY comes from.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import measure
from edge.calibration_cost import EFFICIENCY
from edge.sources import resolve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--text", help="calibration text; the one that ships when left out")
    parser.add_argument("--spill", action="store_true")
    args = parser.parse_args()
    checkpoint = str(resolve(args.model).directory)
    edge = str(Path(sys.executable).with_name("edge"))
    with tempfile.TemporaryDirectory() as work:
        command = [
            edge,
            "convert",
            checkpoint,
            "-t",
            "android",
            "--no-proof",
            "-o",
            f"{work}/bundle",
            "--calibrate",
        ]
        command += [args.text] if args.text else []
        command += ["--spill"] if args.spill else []
        said = subprocess.run([*command, "--dry-run", "--json"], check=True, capture_output=True, text=True)
        plan = json.loads(said.stdout)
        cost = measure([*command, "--json"], log=Path(work) / "log", env={"EDGE_CACHE_DIR": f"{work}/cache"})
    stated = plan["calibration"]
    print(f"{args.model}: {stated['windows']} x {stated['length']} tokens")
    share = EFFICIENCY * stated["seconds"] / cost.seconds
    print(f"share of a product's speed: assumed {EFFICIENCY}, reached {share:.2f}")
    print(f"time    stated {stated['seconds']:6.0f} s, measured {cost.seconds:6.0f} s")
    print(f"memory  stated {plan['memory_bytes'] / 2**20:6.0f} MiB, measured {cost.peak_mib:6.0f} MiB")


if __name__ == "__main__":
    main()

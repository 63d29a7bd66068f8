"""optimum's exporter, in the environment that has it: the transformers it works with is not that of `edge[shrink]`."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import quant.distill
from converters.errors import MachineError, UnsupportedError

VARIABLE = "EDGE_ENCODERS_PYTHON"
PROGRAM = Path(quant.distill.__file__).with_name("optimum_export.py")
MISSING = 3
"""The program's exit status where a package is not installed."""
HINT = (
    "python -m venv encoders && encoders/bin/pip install 'edge[encoders]', then encoders/bin/edge convert ..."
)


def environment() -> str:
    """The Python that has optimum: $EDGE_ENCODERS_PYTHON, else the one that runs. Raises UnsupportedError."""
    if chosen := os.environ.get(VARIABLE):
        return chosen
    try:
        found = importlib.util.find_spec("optimum.exporters.onnx")
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise UnsupportedError("an encoder is exported by optimum-onnx, which is not installed", hint=HINT)
    return sys.executable


def export(
    checkpoint: Path, folder: Path, probes: Mapping[str, NDArray[np.int64]]
) -> tuple[NDArray[np.float32], dict[str, str]]:
    """Write `folder`/model.onnx; the checkpoint's answers to the probes, and the versions of what wrote the graph.

    Raises UnsupportedError where a package is missing, MachineError with the exporter's last line where it fails.
    """
    python = environment()
    with tempfile.TemporaryDirectory(dir=folder) as work:
        np.savez(Path(work) / "probes.npz", allow_pickle=False, **probes)
        # Neither the caller's packages nor the network have a say in what is exported.
        changes = {"HF_HUB_OFFLINE": "1", "PYTHONPATH": "", "TOKENIZERS_PARALLELISM": "false"}
        words = [python, str(PROGRAM), str(checkpoint.absolute()), work]
        try:
            done = subprocess.run(
                words, env=os.environ | changes, capture_output=True, text=True, check=False
            )
        except OSError as error:
            raise UnsupportedError(
                f"{VARIABLE}={python} is no Python that runs: {error.strerror}", hint=HINT
            ) from None
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        if done.returncode == MISSING:
            raise UnsupportedError(
                f"an encoder is exported by optimum-onnx, and {python} has no {last}", hint=HINT
            )
        if done.returncode != 0:
            raise MachineError(
                f"optimum could not export {checkpoint.name}: {last}",
                hint="EDGE_DEBUG=1 shows all that it said",
            ) from RuntimeError(done.stderr)
        (Path(work) / "model.onnx").rename(folder / "model.onnx")
        if (data := Path(work) / "model.onnx_data").exists():
            data.rename(folder / data.name)
        versions: dict[str, str] = json.loads((Path(work) / "versions.json").read_text())
        answers: NDArray[np.float32] = np.load(Path(work) / "answers.npy", allow_pickle=False)
    return answers, versions

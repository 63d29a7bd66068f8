"""Features of an encoder's graph, made in a process of their own for the reasons of `edge.runtimes.isolated`."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.errors import EdgeError
from edge.engine_settings import EngineSettings
from edge.runtimes.isolated import PROOF_THREADS, die_with, ended


def features(artifact: Path, kind: str, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    """What the encoder for `kind` ("image", "audio") in the folder `artifact` makes of `inputs`: [n, hidden].

    Speech is projected as in a prompt without an image. Raises as `edge.runtimes.isolated.teacher_forced` does.
    """
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "inputs.npz", Path(folder) / "features.npy"
        np.savez(given, allow_pickle=False, **inputs)
        words = [str(artifact), kind, str(given), str(made), str(os.getpid())]
        done = subprocess.run(
            [sys.executable, "-m", __name__, *words], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise ended(artifact, done.returncode, done.stderr)
        found: NDArray[np.float32] = np.load(made)
    return found


def _main(artifact: str, kind: str, given: str, made: str, parent: str) -> None:
    die_with(int(parent))
    from edge.runtimes.multimodal.sessions import encode, open_encoder

    try:
        session = open_encoder(Path(artifact), kind, EngineSettings(threads=PROOF_THREADS))
        with np.load(given) as inputs:
            np.save(made, encode(session, kind, dict(inputs), beside_image=False))
    except EdgeError as error:
        print(f"error: {error.cause}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    _main(*sys.argv[1:])

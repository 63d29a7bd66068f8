"""The first layers of a checkpoint: `python -m benchmarks.cut_checkpoint DIR --layers 2 [--model NAME]`.

Embedding, final norm and lm_head stay, and every value is what it was: real weights and the real vocabulary in a
model that an emulated NPU runs in seconds. What it says means little; how exactly it says it means a lot.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import numpy as np

from benchmarks.random_checkpoint import write_header
from converters.checkpoint import Checkpoint
from edge.sources import resolve

DEFAULT = "smollm2-135m-instruct"
_LAYERS = "model.layers."
_CHUNK = 1 << 24


def cut_checkpoint(source: Path, target: Path, layers: int) -> None:
    """Write the checkpoint `source` (Phi-3 layout), with its first `layers` layers only, into the new folder `target`.

    ValueError when it has fewer. The tensors' dtypes stay; nothing is held whole.
    """
    target.mkdir(parents=True)
    for file in sorted(source.iterdir()):
        if file.suffix != ".safetensors" and file.name != "model.safetensors.index.json":
            shutil.copyfile(file, target / file.name)
    with Checkpoint.open(source) as checkpoint:
        config = dict(checkpoint.config)
        if not 0 < layers <= config["num_hidden_layers"]:
            raise ValueError(f"{layers} of {config['num_hidden_layers']} layers")
        config["num_hidden_layers"] = layers
        (target / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        kept = [t for name, t in checkpoint.tensors.items() if _layer(name) < layers]
        with (target / "model.safetensors").open("wb") as file:
            write_header(file, {t.name: (t.dtype, t.shape, t.nbytes // int(np.prod(t.shape))) for t in kept})
            for tensor in kept:
                step = max(1, _CHUNK // (tensor.nbytes // tensor.rows))
                for start in range(0, tensor.rows, step):
                    rows = checkpoint.read(tensor.name, start, min(start + step, tensor.rows))
                    file.write(rows.view(np.uint8).data)


def _layer(tensor: str) -> int:
    """Which layer it belongs to; -1: none."""
    return int(tensor.removeprefix(_LAYERS).split(".")[0]) if tensor.startswith(_LAYERS) else -1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--model", default=DEFAULT, help="a name or a checkpoint directory in Phi-3 layout")
    parser.add_argument("--layers", type=int, default=2)
    options = parser.parse_args()
    cut_checkpoint(resolve(options.model).directory, options.directory, options.layers)
    print(options.directory)


if __name__ == "__main__":
    main()

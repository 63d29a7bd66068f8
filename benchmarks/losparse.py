"""At which size factored layers are smaller and faster than dense ones: `python -m benchmarks.losparse DIR`.

A random dense Phi-3 model, and for each pair of shares (of the factors, of the rows) a random one whose layers
are factored, all converted for the CPU (int4 by default) without a proof: neither size nor speed depends on values.
Each is benched in turns with the dense one, run by run, and a ratio is of two runs side by side: what slows the machine
down slows both. Told are the median and the quartiles of the ratios. What a share costs in quality is for
`python -m benchmarks.losparse_quality` to say.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from benchmarks.random_checkpoint import write_checkpoint
from benchmarks.shapes import SHAPES
from converters.checkpoint import Checkpoint
from edge.benchmark import Request, bench
from edge.cli.bench import contender
from edge.convert import ConvertRequest, convert, plan
from edge.progress import Silent
from quant.lowrank.names import ARCHITECTURE, LINEAR, MODEL_TYPE, rank_of
from quant.tensor_file import copy_side_files, write_tensors

VOCABULARY = 4096
PAIRS = ((0.05, 0.05), (0.1, 0.1), (0.2, 0.1), (0.3, 0.2), (0.4, 0.3), (0.5, 0.5))


def write_factored(dense: Path, directory: Path, low_rank: float, keep: float, *, seed: int = 0) -> None:
    """The checkpoint in `dense` with random factors and rows of these shares for its linear layers, bfloat16."""
    directory.mkdir(parents=True)
    copy_side_files(dense, directory)
    rng = np.random.default_rng(seed)
    tensors: dict[str, NDArray[Any]] = {}
    with Checkpoint.open(dense) as checkpoint:
        for name, info in checkpoint.tensors.items():
            layer = name.removesuffix(".weight")
            if not layer.endswith(LINEAR):
                tensors[name] = checkpoint.read(name)
                continue
            out, columns = info.shape
            kept, rank = round(keep * out), rank_of(out, columns, low_rank)
            rows = np.full(out, kept, np.float32)
            rows[rng.permutation(out)[:kept]] = np.arange(kept)
            shapes = {"low_rank_a": (rank, columns), "low_rank_b": (out, rank), "sparse": (kept + 1, columns)}
            for part, shape in shapes.items():
                values = rng.standard_normal(shape, np.float32) / np.sqrt(shape[1])
                tensors[f"{layer}.{part}"] = values.astype(ml_dtypes.bfloat16)
            tensors[f"{layer}.sparse"][kept] = 0
            tensors[f"{layer}.sparse_rows"] = rows
        config = checkpoint.config | {"model_type": MODEL_TYPE, "architectures": [ARCHITECTURE]}
    labels = {np.dtype(np.float32): "F32", np.dtype(ml_dtypes.bfloat16): "BF16"}

    def rows_of(name: str) -> Iterator[NDArray[Any]]:
        yield tensors[name]

    write_tensors(
        directory / "model.safetensors",
        {name: (labels[values.dtype], values.shape) for name, values in tensors.items()},
        rows_of,
    )
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def measure(
    directory: Path, config: dict[str, Any], pairs: Sequence[tuple[float, float]], options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """One row for each pair: bytes of the weight file and ratios to the dense model, as medians and quartiles."""
    dense = directory / "dense"
    write_checkpoint(dense, config)
    dense_bundle = _converted(dense, options.precision)
    for low_rank, keep in pairs:
        thin = directory / f"factored-{low_rank:g}-{keep:g}"
        write_factored(dense, thin, low_rank, keep)
        bundle = _converted(thin, options.precision)
        request = Request(
            (contender(str(bundle), None, None), contender(str(dense_bundle), None, None)),
            prompts=(options.prompt,),
            depths=(0,),
            runs=options.runs,
            threads=options.threads,
        )
        found = bench(request, Silent()).to_data()
        sizes = [each["file_bytes"] for each in found["artifacts"]]
        yield {
            "low_rank": low_rank,
            "keep": keep,
            "bytes": sizes[0],
            "size_ratio": sizes[0] / sizes[1],
            "decode": _spread(found["ratios"]["decode_tokens_per_s"][0]),
            "first_token": _spread(found["ratios"]["first_token_s"][0]),
        }


def _spread(ratio: dict[str, Any]) -> dict[str, float]:
    return {name: ratio[name] for name in ("median", "q1", "q3")}


def _converted(checkpoint: Path, precision: str) -> Path:
    output = checkpoint.with_name(f"{checkpoint.name}-bundle")
    request = ConvertRequest(str(checkpoint), ("cpu",), precision=precision, output=output, proof=False)
    convert(plan(request), Silent())
    return output


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path, help="a new place; it is left there")
    parser.add_argument("--shape", choices=SHAPES, default="1b")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--precision", choices=["int4", "int8", "f32"], default="int4")
    parser.add_argument("--pair", nargs=2, type=float, action="append", metavar=("LOW_RANK", "KEEP"))
    parser.add_argument("--prompt", type=int, default=128, help="tokens")
    parser.add_argument("--runs", type=int, default=21)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    # A small vocabulary, so that the layers are what is measured.
    config = SHAPES[options.shape] | {"num_hidden_layers": options.layers, "vocab_size": VOCABULARY}
    pairs = [(low, keep) for low, keep in options.pair] if options.pair else PAIRS
    print("low rank  rows  size  decode speed        time to first token   (ratios to dense)", flush=True)
    for row in measure(options.directory, config, pairs, options):
        cells = (
            f"{row[name]['median']:.2f} ({row[name]['q1']:.2f}..{row[name]['q3']:.2f})"
            for name in ("decode", "first_token")
        )
        shares = f"{row['low_rank']:8.2f}  {row['keep']:4.2f}  {row['size_ratio']:4.2f}"
        print(shares, *cells, sep="  ", flush=True)


if __name__ == "__main__":
    main()

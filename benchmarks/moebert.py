"""What experts cost and save: `python -m benchmarks.moebert DIR`.

`edge distill --method moebert` makes a student of the embedded default in a few steps (neither work nor speed depends
on how well it was taught), and both are converted for the CPU with the same settings. Printed are the multiplications
and additions of matrices that one token takes, counted from what was converted, the size of the weight file, and the
speed of prefill and of decoding, each as the student's over the dense model's, measured in turns in one run.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

from converters.checkpoint import Checkpoint
from converters.decoder import Decoder, Experts, RoutedMlp
from converters.models import describe
from edge.benchmark import Request, bench
from edge.cli.bench import contender
from edge.cli.console import table
from edge.convert import ConvertRequest, convert
from edge.distilling.moebert import distill
from edge.distilling.moebert_plan import MoebertRequest
from edge.distilling.moebert_plan import plan as plan_distill
from edge.plan import plan
from edge.progress import Silent
from edge.sources import resolve

TEXT = Path(__file__).parents[1] / "quant" / "calibration.txt"
EMBEDDED = "smollm2-135m-instruct"


def flops_per_token(decoder: Decoder, context: int = 0) -> tuple[int, int]:
    """(of all matrices, of the MLPs alone): two for each weight that a token is multiplied by, lm_head's among them.

    `context`: positions whose keys and values it meets, two for each of their channels. ValueError for experts that
    are chosen by a router, of which a token takes several.
    """
    mlps = total = 0
    for layer in decoder.layers:
        if isinstance(layer.mlp, Experts):
            raise ValueError(f"{layer.mlp.router.name}: experts chosen by a router")
        mlp = layer.mlp.experts[0] if isinstance(layer.mlp, RoutedMlp) else layer.mlp
        mlps += sum(2 * math.prod(w.shape) for w in mlp.weights() if w.is_matrix)
        total += sum(2 * math.prod(w.shape) for w in (layer.q, layer.k, layer.v, layer.o))
        total += 4 * context * decoder.attention.heads * decoder.attention.head_dim
    return total + mlps + 2 * math.prod(decoder.lm_head.shape), mlps


def measure(model: str, directory: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Make the student in `directory` and convert both, where that is not done; compare: counts of both, ratios student
    over dense."""
    directory.mkdir(parents=True, exist_ok=True)
    dense, student = resolve(model).directory, directory / "student"
    request = MoebertRequest(
        model,
        TEXT,
        student,
        experts=options.experts,
        steps=options.steps,
        batch=1,
        length=64,
        ranked=options.ranked,
    )
    planned = plan_distill(request)
    if not student.exists():
        distill(planned, Silent())
    bundles = [_converted(source, directory, options.precision) for source in (student, dense)]
    counts = []
    for source in (student, dense):
        with Checkpoint.open(source) as checkpoint:
            counts.append(flops_per_token(describe(checkpoint), options.prompt))
    compared = Request(
        (contender(str(bundles[0]), None, None), contender(str(bundles[1]), None, None)),
        prompts=(options.prompt,),
        depths=(options.prompt,),
        runs=options.runs,
        threads=options.threads,
    )
    found = bench(compared, Silent()).to_data()
    return {"split": planned.to_data()["split"], "flops": counts, **found}


def rows(found: dict[str, Any]) -> list[list[str]]:
    """Student, dense, and the first over the second, as a table's lines."""
    (ours, our_mlps), (theirs, their_mlps) = found["flops"]
    a, b = found["artifacts"]
    first, decode = found["ratios"]["first_token_s"][0], found["ratios"]["decode_tokens_per_s"][0]

    def speed(each: dict[str, Any], kind: str) -> str:
        return f"{each[kind][0]['tokens_per_s']['median']:.1f}"

    return [
        [
            "FLOPs a token, MLPs (M)",
            f"{our_mlps / 1e6:.1f}",
            f"{their_mlps / 1e6:.1f}",
            f"{our_mlps / their_mlps:.3f}",
        ],
        ["FLOPs a token, all (M)", f"{ours / 1e6:.1f}", f"{theirs / 1e6:.1f}", f"{ours / theirs:.3f}"],
        _counted("weight file (MB)", a["file_bytes"], b["file_bytes"]),
        _counted("weights read a token (MB)", a["weight_bytes_per_token"], b["weight_bytes_per_token"]),
        ["prefill, tokens/s", speed(a, "prompts"), speed(b, "prompts"), _inverse(first)],
        ["decode, tokens/s", speed(a, "depths"), speed(b, "depths"), _spread(decode)],
    ]


def _counted(name: str, ours: int, theirs: int) -> list[str]:
    return [name, f"{ours / 1e6:.1f}", f"{theirs / 1e6:.1f}", f"{ours / theirs:.3f}"]


def _spread(ratio: dict[str, float]) -> str:
    return f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})"


def _inverse(ratio: dict[str, float]) -> str:
    return _spread({"median": 1 / ratio["median"], "min": 1 / ratio["max"], "max": 1 / ratio["min"]})


def _converted(checkpoint: Path, directory: Path, precision: str) -> Path:
    output = directory / ("experts" if checkpoint.parent == directory else "dense")
    request = ConvertRequest(str(checkpoint), ("cpu",), precision=precision, output=output, proof=False)
    if not output.exists():
        convert(plan(request), Silent())
    return output


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "directory", type=Path, help="for student and bundles; a rerun measures those that are there"
    )
    parser.add_argument("--model", default=EMBEDDED)
    parser.add_argument("--experts", type=int, default=4)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--ranked", type=int, default=8, help="examples that rank the neurons")
    parser.add_argument("--precision", choices=["int4", "int8", "f32"], default="int4")
    parser.add_argument("--prompt", type=int, default=128, help="tokens")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    found = measure(options.model, options.directory, options)
    split = found["split"]
    print(
        f"{split['experts']} experts of {split['size']} neurons, {split['shared']} shared, of {split['neurons']}; "
        f"{options.precision}, {options.threads} thread, a prompt of {options.prompt}, {options.runs} runs in turns"
    )
    for line in table(["", "experts", "dense", "ratio"], rows(found)):
        print(line)
    print(f"{found['waited_for_cores']:.0%} of the time was spent waiting for a core")


if __name__ == "__main__":
    main()

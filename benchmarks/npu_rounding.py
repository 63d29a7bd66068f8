"""What rounding activations to 16 bits costs the whole embedded default: `python -m benchmarks.npu_rounding`.

The reference evaluator, in float32, with the inputs and outputs of every linear layer rounded to their grids, or to
float16: the depth that the emulated NPU (benchmarks.npu_forms) is too slow for. Ranges are measured on the
calibration text and the cost on the proof's text, for several margins; KL and top-1 are of the rounded model against
the same in float32.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from converters.checkpoint import Checkpoint
from converters.decoder import Decoder, Weight
from converters.forward import Floats, Weights, rms_norm, rope_table, run_layer
from converters.models import describe
from converters.onnx.npu.qdq import ROOM, in_two
from converters.onnx.npu.rounding import LAST, Range, grid
from converters.reference import Resident, Streamed
from converters.verify import divergence
from edge.calibration_text import read_text
from edge.sources import resolve
from quant.ranges import measure_ranges, widened

DEFAULT = "smollm2-135m-instruct"
TEXT = Path("edge/proof.txt")


class Rounded:
    """`converters.forward.Weights` whose inputs and outputs are rounded to the grids of `ranges`; none: to float16."""

    def __init__(self, weights: Resident, ranges: Mapping[str, Range] | None) -> None:
        self._weights, self._ranges = weights, ranges

    def vector(self, weight: Weight) -> Floats:
        return self._weights.vector(weight)

    def project(self, weight: Weight, inputs: Floats) -> Floats:
        """As `converters.onnx.npu.qdq` has it, where values are far apart in two parts."""
        name, ranges = weight.name, self._ranges
        if ranges is None or f"{name}.in.most" not in ranges or not in_two(weight, ranges):
            outputs = self._weights.project(weight, self._round(f"{name}.in", inputs))
            return self._round(f"{name}.out", outputs)
        low, high = ranges[f"{name}.out.most"]
        ordinary = np.clip(inputs, *ranges[f"{name}.in.most"]).astype(np.float32)
        first = self._weights.project(weight, self._round(f"{name}.in.most", ordinary))
        rest = self._weights.project(weight, self._round(f"{name}.in", inputs - ordinary))
        return _on_grid(first, (ROOM * low, ROOM * high)) + self._round(f"{name}.out", rest)

    def _round(self, name: str, values: Floats) -> Floats:
        if self._ranges is None:
            return values.astype(np.float16).astype(np.float32)
        return _on_grid(values, self._ranges[name])


def _on_grid(values: Floats, ends: Range) -> Floats:
    scale, zero = grid(*ends)
    codes = np.clip(np.rint(values / scale) + np.float32(zero), 0, LAST)
    rounded: Floats = ((codes - np.float32(zero)) * scale).astype(np.float32)
    return rounded


def logits_through(
    wrap: Callable[[Resident], Weights], checkpoint: Checkpoint, decoder: Decoder, ids: list[int]
) -> Floats:
    """Teacher-forced logits float32 [len(ids), vocab_size], of layers whose weights are wrapped like this."""
    streamed = Streamed(checkpoint)
    hidden = streamed.gather(decoder.embedding, np.asarray(ids))
    cos, sin = rope_table(decoder.rope, len(ids))
    for layer in decoder.layers:
        run_layer(wrap(Resident(streamed, layer)), layer, decoder, hidden, cos, sin)
    normed = rms_norm(hidden, streamed.vector(decoder.final_norm), decoder.norm_eps)
    return streamed.project(decoder.lm_head, normed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=DEFAULT)
    parser.add_argument("--windows", default="2,8,32", help="of 512 tokens, for the ranges")
    parser.add_argument("--margins", default="1,1.25,2,4")
    parser.add_argument("--tokens", type=int, default=256)
    options = parser.parse_args()
    source = resolve(options.model).directory
    ids = Tokenizer.from_file(str(source / "tokenizer.json")).encode(TEXT.read_text(encoding="utf-8")).ids
    ids = ids[: options.tokens]
    with Checkpoint.open(source) as checkpoint:
        decoder = describe(checkpoint)
        run = partial(logits_through, checkpoint=checkpoint, decoder=decoder, ids=ids)
        exact = run(lambda weights: weights)
        print(
            "| activations | windows | margin | KL mean | KL p99 | top-1 | cosine |\n|---|---|---|---|---|---|---|"
        )
        _row("float16 | - | -", exact, run(lambda weights: Rounded(weights, None)))
        for windows in map(int, options.windows.split(",")):
            text = read_text(None, source, decoder, count=windows)
            seen = measure_ranges(checkpoint, decoder, text.windows)
            cut = [layer.dense.down for layer in decoder.layers if in_two(layer.dense.down, seen)]
            for margin in map(float, options.margins.split(",")):
                ranges = widened(seen, margin)
                found = run(lambda weights, ranges=ranges: Rounded(weights, ranges))
                _row(f"u16 | {len(text.windows)} | {margin:g}", exact, found)
        print()
        for weight in cut:
            most, all_tokens = (max(map(abs, seen[f"{weight.name}.{end}"])) for end in ("in.most", "in"))
            print(
                f"{weight.name} in two parts: input up to {all_tokens:.0f}, of most tokens up to {most:.1f}"
            )


def _row(label: str, exact: Floats, rounded: Floats) -> None:
    found = divergence(exact, rounded)
    print(
        f"| {label} | {found.kl_mean:.2e} | {found.kl_p99:.2e} | {found.top1:.1%} | {found.cosine:.6f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()

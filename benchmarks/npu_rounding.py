"""What rounding activations to 16 bits costs the whole embedded default: `python -m benchmarks.npu_rounding`.

The reference evaluator, in float32, with the inputs and outputs of every linear layer rounded to their grids: the
depth that the emulated NPU (benchmarks.npu_forms) is too slow for. Ranges are measured on the calibration text and
the cost on the proof's text, for several margins; KL and top-1 are of the rounded model against the same in float.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from converters.checkpoint import Checkpoint
from converters.decoder import Decoder, Weight
from converters.forward import Floats, rms_norm, rope_table, run_layer
from converters.models import describe
from converters.onnx.npu.rounding import LAST, Range, grid
from converters.reference import Resident, Streamed
from converters.verify import divergence
from edge.calibration_text import read_text
from edge.sources import resolve
from quant.ranges import measure_ranges, widened

DEFAULT = "smollm2-135m-instruct"
TEXT = Path("edge/proof.txt")


class Rounded:
    """`converters.forward.Weights` whose inputs and outputs are rounded to the grids of `ranges`."""

    def __init__(self, weights: Resident, ranges: Mapping[str, Range]) -> None:
        self._weights, self._ranges = weights, ranges

    def vector(self, weight: Weight) -> Floats:
        return self._weights.vector(weight)

    def project(self, weight: Weight, inputs: Floats) -> Floats:
        outputs = self._weights.project(weight, self._round(f"{weight.name}.in", inputs))
        return self._round(f"{weight.name}.out", outputs)

    def _round(self, name: str, values: Floats) -> Floats:
        scale, zero = grid(*self._ranges[name])
        codes = np.clip(np.rint(values / scale) + np.float32(zero), 0, LAST)
        return ((codes - np.float32(zero)) * scale).astype(np.float32)


def rounded_logits(
    checkpoint: Checkpoint, decoder: Decoder, ids: list[int], ranges: Mapping[str, Range] | None
) -> Floats:
    """Teacher-forced logits float32 [len(ids), vocab_size]; no ranges: in float."""
    streamed = Streamed(checkpoint)
    hidden = streamed.gather(decoder.embedding, np.asarray(ids))
    cos, sin = rope_table(decoder.rope, len(ids))
    for layer in decoder.layers:
        weights = Resident(streamed, layer)
        run_layer(Rounded(weights, ranges) if ranges else weights, layer, decoder, hidden, cos, sin)
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
        exact = rounded_logits(checkpoint, decoder, ids, None)
        print("| windows | margin | KL mean | KL p99 | top-1 | cosine |\n|---|---|---|---|---|---|")
        for windows in map(int, options.windows.split(",")):
            text = read_text(None, source, decoder, count=windows)
            seen = measure_ranges(checkpoint, decoder, text.windows)
            for margin in map(float, options.margins.split(",")):
                found = divergence(exact, rounded_logits(checkpoint, decoder, ids, widened(seen, margin)))
                print(
                    f"| {len(text.windows)} | {margin:g} | {found.kl_mean:.2e} | {found.kl_p99:.2e} | "
                    f"{found.top1:.1%} | {found.cosine:.6f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()

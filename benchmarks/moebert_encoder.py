"""An encoder in experts beside the dense one: `python -m benchmarks.moebert_encoder DIR`.

A random BERT classifier (MiniLM-L6's sizes; `--shape base` for BERT-base's), split as `edge distill --method moebert`
splits it, and the same graph with one expert of all neurons, which is the dense model without any routing. Both answer
batches of random ids in plain onnxruntime, in turns. Printed are the multiplications and additions of matrices that one
token takes, and the times, the dense model's over the other's.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from transformers import BertConfig, BertForSequenceClassification

from converters.bert_moebert import describe_bert
from converters.checkpoint import Checkpoint
from converters.onnx.bert_moebert import INPUTS, write_bert
from edge.cli.console import table
from quant.distill.moebert_model import split_student, write_student
from quant.distill.moebert_split import Split, plan_split, routing_tables
from quant.recipe import Recipe

SHAPES = {
    "minilm": {
        "hidden_size": 384,
        "intermediate_size": 1536,
        "num_hidden_layers": 6,
        "num_attention_heads": 12,
    },
    "base": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
    },
}
BATCHES = ((1, 32), (1, 128), (8, 64))


def write_pair(directory: Path, shape: dict[str, int], precision: Any) -> dict[str, Path]:
    """The folders of both graphs by name; where they are there already, as they are."""
    made = {name: directory / name for name in ("experts", "dense")}
    inner, layers = shape["intermediate_size"], shape["num_hidden_layers"]
    splits = {"experts": plan_split(inner), "dense": Split(1, inner, inner)}
    for name, folder in made.items():
        if folder.exists():
            continue
        torch.manual_seed(0)
        config = BertConfig(**shape)
        model, split = BertForSequenceClassification(config), splits[name]
        tables = routing_tables("hash", np.zeros(0, np.int64), config.vocab_size, split.experts, layers, 0)
        split_student(model, "encoder", split, np.random.default_rng(0).random((layers, inner)), tables)
        checkpoint = directory / f"{name}-checkpoint"
        checkpoint.mkdir(parents=True)
        write_student(model, "encoder", split, {**config.to_diff_dict(), **shape}, checkpoint)
        with Checkpoint.open(checkpoint) as opened:
            write_bert(opened, Recipe.preset(precision), folder)
    return made


def flops_per_token(checkpoint: Path) -> int:
    """Two for each weight of the layers' matrices that a token is multiplied by."""
    with Checkpoint.open(checkpoint) as opened:
        layers = describe_bert(opened).layers
    matrices = (
        part.weight
        for layer in layers
        for part in (
            layer.attention.q,
            layer.attention.k,
            layer.attention.v,
            layer.attention.o,
            layer.experts[0].mlp.up,
            layer.experts[0].mlp.down,
        )
    )
    return sum(2 * weight.shape[0] * weight.shape[1] for weight in matrices)


def compare(folders: dict[str, Path], batch: tuple[int, int], runs: int, threads: int) -> list[float]:
    """Seconds of the dense graph over those of the other, run by run, taken in turns; the first two do not count."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    sessions = [
        onnxruntime.InferenceSession(str(folders[name] / "model.onnx"), options)
        for name in ("experts", "dense")
    ]
    random, ones = np.random.default_rng(0), np.ones(batch, np.int64)
    ratios = []
    for _ in range(runs + 2):
        feed = dict(zip(INPUTS, (random.integers(1000, 30000, batch), ones, 0 * ones), strict=True))
        times = []
        for session in sessions:
            began = time.perf_counter()
            session.run(None, feed)
            times.append(time.perf_counter() - began)
        ratios.append(times[1] / times[0])
    return ratios[2:]


def rows(ratios: dict[tuple[int, int], Sequence[float]]) -> list[list[str]]:
    """A line a batch."""
    return [
        [f"{size} x {length}", f"{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})"]
        for (size, length), found in ratios.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path, help="for the graphs; a rerun measures those that are there")
    parser.add_argument("--shape", choices=SHAPES, default="minilm")
    parser.add_argument("--precision", choices=["f32", "int8", "int4"], default="f32")
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    folders = write_pair(options.directory, SHAPES[options.shape], options.precision)
    ours, theirs = (
        flops_per_token(options.directory / f"{name}-checkpoint") for name in ("experts", "dense")
    )
    print(f"FLOPs a token: {ours / 1e6:.1f} M in experts, {theirs / 1e6:.1f} M dense: {ours / theirs:.2f}")
    found = {batch: compare(folders, batch, options.runs, options.threads) for batch in BATCHES}
    header = [
        "batch",
        f"times as fast as dense ({options.precision}, {options.threads} thread, {options.runs} runs)",
    ]
    for line in table(header, rows(found)):
        print(line)


if __name__ == "__main__":
    main()

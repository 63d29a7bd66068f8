"""Down projections whose inputs hold massive activations: in two parts, each on a grid of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from converters.checkpoint import Checkpoint
from converters.models import describe
from converters.onnx.npu.qdq import in_two
from converters.reference import Resident, Streamed
from edge.npu.compiler import compile_graph
from edge.npu.socs import load_socs
from edge.runtimes.isolated import teacher_forced
from quant.ranges import Watched
from quant.recipe import Recipe
from tests.converters.npu_support import CpuPipeline, cosine, expected, write_npu
from tests.converters.onnx_support import random_ids
from tests.converters.test_npu_u16 import COSINE, measured
from tests.edge.npu_emulator import needs_emulator

Tiny = Callable[..., Path]


def cut_in_two(recipe: Recipe, share: float = 1 / 40) -> Recipe:
    """As if the values that are beyond `share` of the down projections' ranges were a few tokens'."""
    assert recipe.ranges is not None
    ranges = dict(recipe.ranges)
    for name, (low, high) in recipe.ranges.items():
        if name.endswith(".down.in.most"):
            ranges[name] = (low * share, high * share)
    return replace(recipe, ranges=ranges)


def test_a_down_projection_in_two_parts_says_the_same(tiny: Tiny, tmp_path: Path) -> None:
    recipe = cut_in_two(measured(tiny("phi4-mini")))
    decoder = write_npu(tiny("phi4-mini"), tmp_path, recipe=recipe)
    graph = onnx.load(tmp_path / "context.onnx", load_external_data=False).graph
    assert sum(node.op_type == "MatMul" for node in graph.node) == 6 * len(decoder.layers)
    ids = random_ids(decoder, 20)
    assert cosine(CpuPipeline(tmp_path).prompt(ids), expected(tiny("phi4-mini"), ids, recipe)) > COSINE


@needs_emulator
def test_on_the_emulator_in_two_parts(tiny: Tiny, tmp_path: Path) -> None:
    recipe = cut_in_two(measured(tiny("phi4-mini")))
    decoder = write_npu(tiny("phi4-mini"), tmp_path / "npu", recipe=recipe)
    ids = random_ids(decoder, 20)
    found = teacher_forced(tmp_path / "npu", ids, tmp_path, context_length=40)
    assert cosine(np.asarray(found.logits), expected(tiny("phi4-mini"), ids, recipe)) > COSINE
    assert not compile_graph(tmp_path / "npu" / "context.onnx", load_socs()["SM8650"], None).elsewhere()


def test_tokens_with_massive_activations_are_found(tiny: Tiny) -> None:
    """One token of fifteen has values a thousand times the others'."""
    checkpoint = tiny("phi4-mini")
    with Checkpoint.open(checkpoint) as opened:
        decoder = describe(opened)
        down = Watched(Resident(Streamed(opened), decoder.layers[0]))
        weight = decoder.layers[0].dense.down
        inputs = np.random.default_rng(0).standard_normal((15, weight.shape[1])).astype(np.float32)
        inputs[4] *= 1000
        down.project(weight, inputs)
        ranges = down.ranges(weight)
    ordinary = np.delete(inputs, 4, axis=0)
    assert ranges[f"{weight.name}.in.most"] == (ordinary.min(), ordinary.max())
    assert ranges[f"{weight.name}.in"] == (inputs.min(), inputs.max())
    assert in_two(weight, ranges)

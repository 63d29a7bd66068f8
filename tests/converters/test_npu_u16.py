"""The NPU's form with 16-bit activations: whole numbers in the linear layers, on grids that the ranges give."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from converters.checkpoint import Checkpoint
from converters.decoder import Decoder
from converters.models import describe
from converters.onnx import npu
from converters.onnx.npu.qdq import RANGES_FILE
from converters.onnx.npu.rounding import LAST, grid
from edge.npu.compiler import compile_graph
from edge.npu.socs import load_socs
from edge.runtimes.isolated import teacher_forced
from quant.ranges import measure_ranges, widened
from quant.recipe import Recipe
from tests.converters.npu_support import SHAPES_ON_NPU, CpuPipeline, cosine, expected, write_npu
from tests.converters.onnx_support import random_ids
from tests.edge.npu_emulator import needs_emulator

Tiny = Callable[..., Path]
# A grid of 65536 steps over a range leaves less than float16's 11 bits do, which is what the rest computes with, and
# which is what is left: measured 0.99998, as in the float16 form. One value on a wrong grid gives 0.99 or less.
COSINE = 0.9999


def measured(checkpoint: Path, precision: str = "int4") -> Recipe:
    """A u16 recipe with ranges of random tokens; those of a test are among them."""
    with Checkpoint.open(checkpoint) as opened:
        decoder = describe(opened)
        windows = np.array([random_ids(decoder, 30, seed) for seed in range(8)])
        ranges = widened(measure_ranges(opened, decoder, windows), 1.25)
    return replace(Recipe.preset(precision), activations="u16", ranges=ranges)


@pytest.mark.parametrize(("low", "high"), [(-3.0, 5.0), (2.0, 5.0), (-7.0, -1.0), (0.0, 0.0), (-1e-6, 1e4)])
def test_a_grid_holds_its_range_and_zero(low: float, high: float) -> None:
    scale, zero = grid(low, high)
    ends = (np.array([0, LAST]) - float(zero)) * float(scale)
    assert ends[0] <= min(low, 0) + scale / 2
    assert ends[1] >= max(high, 0) - scale / 2
    assert 0 <= zero <= LAST


def test_ranges_are_those_of_the_reference(tiny: Tiny) -> None:
    """Of what goes into and comes out of a layer, recomputed from the embedding for the first one's queries."""
    checkpoint = tiny("phi4-mini")
    with Checkpoint.open(checkpoint) as opened:
        decoder = describe(opened)
        windows = np.array([random_ids(decoder, 12, seed) for seed in range(3)])
        ranges = measure_ranges(opened, decoder, windows)
        layer = decoder.layers[0]
        table, gain, query = (
            opened.weight_rows(w, 0, w.rows).astype(np.float64)
            for w in (decoder.embedding, layer.input_norm, layer.q)
        )
    rows = table[windows.ravel()]
    normed = rows / np.sqrt(np.mean(rows**2, axis=1, keepdims=True) + decoder.norm_eps) * gain
    outputs = normed @ query.T
    found = [ranges[f"{layer.q.name}.in"], ranges[f"{layer.q.name}.out"]]
    exact = [(normed.min(), normed.max()), (outputs.min(), outputs.max())]
    np.testing.assert_allclose(found, exact, rtol=1e-5)  # float32 against float64
    matrices = [w for each in decoder.layers for w in each.weights() if w.is_matrix]
    ends = {f"{w.name}.{end}" for w in matrices for end in ("in", "out")}
    assert set(ranges) == ends | {f"{end}.most" for end in ends if ".down." in end}


@pytest.mark.parametrize("precision", ["int4", "int8"])
def test_what_is_stored_is_what_the_recipe_says(precision: str, tiny: Tiny, tmp_path: Path) -> None:
    checkpoint, recipe = tiny("uneven"), replace(Recipe.preset(precision), activations="u16")
    decoder = write_npu(checkpoint, tmp_path, recipe=recipe)
    with Checkpoint.open(checkpoint) as opened, npu.open_stored(tmp_path, decoder, recipe) as stored:
        for weight in decoder.weights():
            wanted = recipe.decode(recipe.encode(weight, opened.weight_rows(weight, 0, weight.rows)))
            np.testing.assert_array_equal(stored.rows(weight, 0, weight.rows), wanted, err_msg=weight.name)


def test_the_sizes_are_known_before(tiny: Tiny, tmp_path: Path) -> None:
    recipe = measured(tiny("phi4-mini"))
    decoder = write_npu(tiny("phi4-mini"), tmp_path, recipe=recipe, context=64, window=64)
    planned = npu.planned_files(decoder, replace(recipe, ranges=None), 64)
    assert RANGES_FILE in planned
    assert {name: (tmp_path / name).stat().st_size for name in planned} == planned
    written = json.loads((tmp_path / RANGES_FILE).read_bytes())
    assert {name: tuple(ends) for name, ends in written.items()} == recipe.ranges


@pytest.mark.parametrize("shape", SHAPES_ON_NPU)
def test_on_the_cpu_it_says_what_the_reference_says(shape: str, tiny: Tiny, tmp_path: Path) -> None:
    recipe = measured(tiny(shape))
    decoder = write_npu(tiny(shape), tmp_path, recipe=recipe)
    ids = random_ids(decoder, 30)
    pipeline = CpuPipeline(tmp_path)
    rows = [*pipeline.prompt(ids[:21]), *(pipeline.token(ids[i], i) for i in range(21, 30))]
    assert cosine(np.array(rows), expected(tiny(shape), ids, recipe)) > COSINE


@needs_emulator
@pytest.mark.parametrize("precision", ["int4", "int8"])
@pytest.mark.parametrize("shape", ["phi3-mini-4k", "phi4-mini"])
def test_on_the_emulator_too_and_every_node_is_there(
    shape: str, precision: str, tiny: Tiny, tmp_path: Path
) -> None:
    """The whole head turns in the attention, or part of it before."""
    recipe = measured(tiny(shape), precision)
    decoder = write_npu(tiny(shape), tmp_path / "npu", recipe=recipe)
    ids = random_ids(decoder, 20)
    found = teacher_forced(tmp_path / "npu", ids, tmp_path, context_length=40)
    assert cosine(np.asarray(found.logits), expected(tiny(shape), ids, recipe)) > COSINE
    done = compile_graph(tmp_path / "npu" / "iterator.onnx", load_socs()["SM8650"], None)
    assert not done.elsewhere()


def test_every_linear_layer_lies_between_two_grids(tiny: Tiny, tmp_path: Path) -> None:
    """What the provider needs to multiply whole numbers: 16 bits before and behind, and no cast between."""
    decoder = write_npu(tiny("phi4"), tmp_path, recipe=measured(tiny("phi4")))
    graph = onnx.load(tmp_path / "context.onnx", load_external_data=False).graph
    made = {name: node for node in graph.node for name in node.output}
    products = [node for node in graph.node if node.op_type == "MatMul"]
    assert len(products) == 5 * len(decoder.layers)  # qkv, o, gate, up, down
    for product in products:
        (reader,) = (node for node in graph.node if product.output[0] in node.input)
        assert made[product.input[0]].op_type == "DequantizeLinear"
        assert made[made[product.input[0]].input[0]].op_type == "QuantizeLinear"
        assert reader.op_type == "QuantizeLinear"


def other_facts(folder: Path, decoder: Decoder, recipe: Recipe) -> list[str]:
    """Those that are not exactly as expected; a float64 that the graph holds as float32 is among them."""
    with npu.open_stored(folder, decoder, recipe) as stored:
        return [
            fact.key
            for fact in stored.facts(40)
            if fact.found != fact.expected and "scale" not in fact.key[-5:]
        ]


def test_a_changed_grid_is_found(tiny: Tiny, tmp_path: Path) -> None:
    recipe = measured(tiny("phi4"))
    decoder = write_npu(tiny("phi4"), tmp_path, recipe=recipe)
    before = other_facts(tmp_path, decoder, recipe)
    file = tmp_path / "iterator.onnx"
    model = onnx.load(file, load_external_data=False)
    (zero,) = (t for t in model.graph.initializer if t.name == "layers.1.mlp.up.out.zero")
    zero.CopyFrom(onnx.numpy_helper.from_array(np.array(5, np.uint16), zero.name))
    onnx.save(model, file)
    assert other_facts(tmp_path, decoder, recipe) == [*before, "iterator: layers.1.mlp.up.out.zero"]
    (tmp_path / RANGES_FILE).write_text("{}")
    assert f"{RANGES_FILE}: a pair for every weight" in other_facts(tmp_path, decoder, recipe)

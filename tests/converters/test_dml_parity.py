"""The DirectML graph, on the CPU, says what the stored weights say: every shape, whole prompts and single tokens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from converters.onnx import dml
from converters.onnx.dml.decoder_graph import build
from converters.onnx.dml.layout import plan
from converters.verify import divergence
from quant.blocks import FORMATS, Blocks
from quant.recipe import Recipe
from tests.converters import onnx_support
from tests.converters.dml_support import (
    TINY,
    Session,
    convert,
    cosine,
    recipe_for,
    reference,
)
from tests.converters.onnx_support import Oracle, in_chunks, random_ids, through_codec, uniform

# float16 activations: measured on all shapes, a mean KL of 5e-7 to 1.6e-6 and logits of order 1 off by 0.005 to
# 0.014. A real fault (a wrong zero point, an unturned head) moves logits by 0.1 or more and the KL past 1e-3.
MOST_KL, MOST_ERROR, LEAST_COSINE = 1e-5, 0.03, 0.99999
FEEDS = {"prefill": [40], "decode": [28] + [1] * 12}


def _assert_near(expected: np.ndarray, found: np.ndarray) -> None:
    assert cosine(expected, found) > LEAST_COSINE
    assert divergence(expected, found).kl_mean < MOST_KL
    assert np.abs(expected - found).max() < MOST_ERROR


@pytest.mark.parametrize("shape", TINY)
def test_every_shape_matches_the_reference(shape: str, tiny: Callable[..., Path], tmp_path: Path) -> None:
    recipe = recipe_for(shape)
    decoder = convert(tiny(shape), tmp_path, recipe)
    ids = random_ids(decoder, 40)
    expected = reference(tiny(shape), recipe, ids)
    for sizes in FEEDS.values():
        _assert_near(expected, in_chunks(Session(tmp_path), ids, sizes))


@pytest.mark.parametrize("storage", ["int4", "int8", "f16"])
@pytest.mark.parametrize("shape", ["phi4", "phi4-mini"])
def test_every_storage_matches_the_reference(
    shape: str, storage: str, tiny: Callable[..., Path], tmp_path: Path
) -> None:
    """Untied and tied: int4 looks an embedding row up as nibbles, int8 as bytes, f16 as it is."""
    recipe = uniform(storage)
    decoder = convert(tiny(shape), tmp_path, recipe)
    ids = random_ids(decoder, 40)
    expected = reference(tiny(shape), recipe, ids)
    _assert_near(expected, in_chunks(Session(tmp_path), ids, [30] + [1] * 10))


def test_transformers_says_the_same(tiny: Callable[..., Path], tmp_path: Path) -> None:
    checkpoint, recipe = tiny("phi4-mini"), Recipe.preset("int4")
    decoder = convert(checkpoint, tmp_path, recipe)
    oracle = Oracle(checkpoint)
    oracle.load(decoder, through_codec(checkpoint, recipe))
    ids = random_ids(decoder, 40)
    _assert_near(oracle.logits(ids), in_chunks(Session(tmp_path), ids, FEEDS["decode"]))


@pytest.mark.parametrize("shape", ["phi4", "phi4-mini"])
def test_the_same_graph_in_float32_is_exact(shape: str, tiny: Callable[..., Path], tmp_path: Path) -> None:
    """What WebGPU runs (benchmarks.webgpu): the same nodes over the same data file, but for casts of constants."""
    recipe = Recipe.preset("int4")
    decoder = convert(tiny(shape), tmp_path, recipe)
    half = onnx.load(tmp_path / "model.onnx", load_external_data=False).graph
    full = build(decoder, plan(decoder, recipe, 256), activations=np.dtype(np.float32))
    without_casts = [[n.op_type for n in g.node if n.op_type != "Cast"] for g in (half, full.graph)]
    assert without_casts[0] == without_casts[1]
    (tmp_path / "model.onnx").write_bytes(full.SerializeToString())
    ids = random_ids(decoder, 40)
    found = in_chunks(onnx_support.PositionedSession(tmp_path), ids, FEEDS["decode"])
    expected = reference(tiny(shape), recipe, ids)
    np.testing.assert_allclose(found, expected, rtol=0, atol=onnx_support.TOLERANCE)


@pytest.mark.parametrize("shape", TINY)
def test_codes_are_those_of_the_cpu_variant(shape: str, tiny: Callable[..., Path], tmp_path: Path) -> None:
    recipe = recipe_for(shape)
    decoder = convert(tiny(shape), tmp_path / "dml", recipe)
    onnx_support.convert(tiny(shape), tmp_path / "cpu", recipe)
    blocks = 0
    with (
        dml.open_stored(tmp_path / "dml", decoder, recipe) as here,
        onnx_support.onnx_room.open_stored(tmp_path / "cpu", decoder, recipe) as there,
    ):
        for weight in decoder.weights():
            one, other = (stored.stored_rows(weight, 0, weight.rows) for stored in (here, there))
            if isinstance(one, Blocks) and isinstance(other, Blocks):
                blocks += 1
                np.testing.assert_array_equal(one.codes, other.codes)
                np.testing.assert_array_equal(one.scales, other.scales)
            else:
                np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
    assert blocks == sum(recipe.storage(weight) in FORMATS for weight in decoder.weights())

"""Phi-3.5-MoE for llama.cpp: the rewriting is what the engine computes, and nearly what the model does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters import gguf
from converters.checkpoint import Checkpoint
from converters.decoder import Decoder, Experts, Weight
from converters.forward import Floats
from converters.models import describe
from converters.reference import logits
from converters.rewriting import Rewriting, Rewritten
from converters.verify import check_stored, divergence
from quant.recipe import Recipe, Rule
from tests.converters.gguf_support import llama
from tests.converters.onnx_support import F32, random_ids, uniform

Tiny = Callable[..., Path]
EXACT = 1e-4
"""Float32 in both; llama.cpp sums in another order: 1e-5 measured."""


def rewritten(checkpoint: Checkpoint) -> tuple[Decoder, Rewriting, Rewritten]:
    decoder = describe(checkpoint)
    rewriting = gguf.rewriting(decoder)
    assert rewriting is not None
    return decoder, rewriting, Rewritten(checkpoint, rewriting.change(checkpoint))


def write(directory: Path, out: Path, recipe: Recipe = F32) -> Decoder:
    """As `edge convert` writes it, in chunks of 50 rows."""
    with Checkpoint.open(directory) as checkpoint:
        decoder, _, source = rewritten(checkpoint)
        writer = gguf.open_writer(
            decoder, recipe, out, context_length=512, checkpoint_directory=directory, model_name="tiny"
        )
        for weight in decoder.weights():
            for start in range(0, weight.rows, 50):
                rows = source.weight_rows(weight, start, min(start + 50, weight.rows))
                writer.write(weight, start, recipe.encode(weight, rows, start=start))
        writer.close()
    return decoder


def engine(file: Path, ids: list[int]) -> Floats:
    with llama(file) as model:
        return np.asarray(model.logits([ids]))


@pytest.mark.parametrize("name", ["phi3.5-moe", "moe-8", "moe-odd"])
def test_llama_cpp_computes_what_the_rewriting_says(tiny: Tiny, name: str, tmp_path: Path) -> None:
    """With the rewritten weights and the rewritten decoder nothing is left of a difference; without attention and
    lm_head biases (moe-odd) the zeros stand in for them."""
    decoder = write(tiny(name), tmp_path / "m.gguf")
    ids = random_ids(decoder, 60)
    with Checkpoint.open(tiny(name)) as checkpoint:
        _, rewriting, source = rewritten(checkpoint)
        expected = logits(source, rewriting.decoder, ids)
    np.testing.assert_allclose(engine(tmp_path / "m.gguf", ids), expected, rtol=0, atol=EXACT)


@pytest.mark.parametrize("name", ["phi3.5-moe", "moe-8", "moe-odd"])
def test_layer_norm_is_exact_and_routing_is_not(tiny: Tiny, name: str) -> None:
    """With SparseMixer put back the rewritten model is the model, but for downs that count twice; with llama.cpp's
    routing it is the model for most tokens only."""
    with Checkpoint.open(tiny(name)) as checkpoint:
        decoder, rewriting, source = rewritten(checkpoint)
        ids = random_ids(decoder, 200)
        truth = logits(checkpoint, decoder, ids)
        approximate = divergence(truth, logits(source, rewriting.decoder, ids))
        assert 1e-4 < approximate.kl_mean < 0.1
        unchanged = logits(checkpoint, rewriting.decoder, ids)
        assert approximate.kl_mean < divergence(truth, unchanged).kl_mean / 4
        routed = replace(rewriting.decoder, layers=decoder.layers)
        mixtures = [layer.mlp for layer in decoder.layers if isinstance(layer.mlp, Experts)]
        names = {expert.down.name for mlp in mixtures for expert in mlp.experts}

        def undone(weight: Weight, start: int, raw: np.ndarray[Any, Any]) -> Floats:
            # Back to the router's own scores and single downs: what is left is the centring.
            name = weight.name
            return raw * np.float32(0.5 if name in names else 128 if name.endswith(".router") else 1)

        np.testing.assert_allclose(logits(source, routed, ids, transform=undone), truth, rtol=0, atol=EXACT)


@pytest.mark.parametrize("storage", ["int4", "int5", "int8", "f16"])
def test_every_storage_is_read_back_as_the_recipe_makes_it(tiny: Tiny, storage: str, tmp_path: Path) -> None:
    recipe = uniform(storage)
    decoder = write(tiny("moe-8"), tmp_path / "m.gguf", recipe)
    stored = gguf.open_stored(tmp_path / "m.gguf", decoder, recipe)
    with Checkpoint.open(tiny("moe-8")) as checkpoint:
        _, _, source = rewritten(checkpoint)
        report = check_stored(
            source,
            decoder,
            stored,
            context_length=512,
            codec=lambda w, start, raw: recipe.decode(recipe.encode(w, raw, start=start)),
        )
        assert report.faults == ()
        wrong = check_stored(checkpoint, decoder, stored, context_length=512, codec=lambda *_: None)
    stored.close()
    # The checkpoint's own weights are not what is stored: downs are twice as large.
    assert any("moe" in fault and "down" in fault for fault in wrong.faults)


def test_q_k_and_v_may_be_stored_apart_with_their_biases(tiny: Tiny, tmp_path: Path) -> None:
    recipe = Recipe("v", (Rule("*.attention.v", "bf16", "cast"), Rule("*", "f32", "cast")))
    decoder = write(tiny("phi3.5-moe", dtype="bf16"), tmp_path / "m.gguf", recipe)
    ids = random_ids(decoder, 20)
    with Checkpoint.open(tiny("phi3.5-moe", dtype="bf16")) as checkpoint:
        _, rewriting, source = rewritten(checkpoint)
        expected = logits(source, rewriting.decoder, ids)
    # v is bf16 in the checkpoint; llama.cpp rounds what it multiplies it by to bf16 as well.
    np.testing.assert_allclose(engine(tmp_path / "m.gguf", ids), expected, rtol=0, atol=0.1)


def test_chunks_of_any_size_are_centred_alike(tiny: Tiny) -> None:
    with Checkpoint.open(tiny("moe-8")) as checkpoint:
        decoder, _, source = rewritten(checkpoint)
        mlp = decoder.layers[1].mlp
        assert isinstance(mlp, Experts)
        for weight in (decoder.embedding, decoder.layers[0].o, mlp.experts[3].down):
            whole = source.weight_rows(weight, 0, weight.rows)
            np.testing.assert_array_equal(source.weight_rows(weight, 5, 9), whole[5:9])
            axis = 1 if weight is decoder.embedding else 0
            # Rounding of float32 values of order 0.1.
            assert np.abs(whole.mean(axis=axis, dtype=np.float64)).max() < 1e-8

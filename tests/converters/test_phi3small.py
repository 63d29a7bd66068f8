"""Phi-3-small: reference and graph against the oracle, across block boundaries, in every way of feeding it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from benchmarks.small_shapes import SMALL_SHAPES
from converters import reference
from converters.checkpoint import Checkpoint
from converters.decoder import UNUSED_LOGIT, Decoder, Weight
from converters.models import describe
from converters.onnx import open_stored
from converters.verify import check_stored
from edge.runtimes import open_runtime
from edge.sources import vocabulary
from quant.recipe import Recipe
from tests.converters.onnx_support import F32, TOLERANCE, convert, generator, random_ids, uniform
from tests.converters.phi3small_oracle import Phi3Small

TINY = [name for name in SMALL_SHAPES if name != "phi3-small-full"]
# Blocks of 16, of which a query sees two and every fourth: 150 positions have blocks that are hidden and seen again.
LENGTH = 150
FEEDS = {"prefill": [150], "chunks": [31, 1, 17, 101], "decode": [47] + [1] * 103}


@pytest.fixture(scope="module")
def small(tiny: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """As `tiny`, with the tokenizer files made."""
    made: dict[Path, Path] = {}

    def make(name: str, **overrides: object) -> Path:
        checkpoint = tiny(name, **overrides)
        if checkpoint not in made:
            made[checkpoint] = tmp_path_factory.mktemp(name) / "checkpoint"
            shutil.copytree(checkpoint, made[checkpoint])
            vocabulary.write(made[checkpoint], made[checkpoint])
        return made[checkpoint]

    return make


Small = Callable[..., Path]


def expected_logits(checkpoint: Path, decoder: Decoder, ids: list[int]) -> np.ndarray:
    logits = Phi3Small(checkpoint).logits(ids)
    logits[:, list(decoder.unused_tokens)] += UNUSED_LOGIT
    return logits


def fed(directory: Path, ids: list[int], sizes: list[int], context: int = 256) -> np.ndarray:
    run, start, found = generator(directory, context), 0, []
    for size in sizes:
        run.append_tokens(np.array([ids[start : start + size]], np.int32))
        found.append(np.array(run.get_output("logits"))[0])
        start += size
    return np.concatenate(found)


@pytest.mark.parametrize("name", TINY)
def test_the_reference_is_the_formulas(name: str, small: Small) -> None:
    with Checkpoint.open(small(name)) as checkpoint:
        decoder = describe(checkpoint)
        ids = random_ids(decoder, LENGTH)
        expected = expected_logits(small(name), decoder, ids)
        logits = reference.logits(checkpoint, decoder, ids)
        # Beside 10,000 the float32 step of an unused token's logit is 1e-3.
        np.testing.assert_allclose(logits, expected, rtol=1e-6, atol=TOLERANCE)
        states = reference.hidden_states(checkpoint, decoder, np.array([ids]))
        again = reference.head_logits(checkpoint, decoder, states[0])
        np.testing.assert_allclose(again, expected, rtol=1e-6, atol=TOLERANCE)
        assert not checkpoint.unread()
    assert Phi3Small(small(name)).clamped(ids) > 0.01


@pytest.mark.parametrize("name", TINY)
def test_genai_is_the_formulas(name: str, small: Small, tmp_path: Path) -> None:
    decoder = convert(small(name), tmp_path)
    ids = random_ids(decoder, LENGTH)
    expected = expected_logits(small(name), decoder, ids)
    for feed, sizes in FEEDS.items():
        found = fed(tmp_path, ids, sizes)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=TOLERANCE, err_msg=feed)


def test_sparse_layers_hide_what_dense_ones_see(small: Small) -> None:
    """Were all layers dense, the logits would be others from the block on where something is hidden first."""
    ids = list(range(5, 5 + LENGTH))
    sparse, dense = (
        Phi3Small(small("phi3-small", dense_attention_every_n_layers=n)).logits(ids) for n in (2, 1)
    )
    hidden_from = 2 * 16
    assert np.abs(sparse - dense)[:hidden_from].max() == 0
    assert np.abs(sparse - dense)[hidden_from:].max() > 0.05


def test_int4_is_the_reference_on_the_dequantized_weights(small: Small, tmp_path: Path) -> None:
    checkpoint, recipe = small("phi3-small"), uniform("int4")
    decoder = convert(checkpoint, tmp_path, recipe, accuracy_level=0)
    ids = random_ids(decoder, LENGTH)

    def through(weight: Weight, start: int, rows: np.ndarray) -> np.ndarray:
        return Recipe.decode(recipe.encode(weight, rows, start=start))

    with Checkpoint.open(checkpoint) as opened:
        expected = reference.logits(opened, decoder, ids, transform=through)
        plain = reference.logits(opened, decoder, ids)
    np.testing.assert_allclose(fed(tmp_path, ids, FEEDS["decode"]), expected, rtol=1e-6, atol=1e-3)
    assert np.abs(plain - expected).max() > 0.01, "the quantization must show, or the test says nothing"


CONSTANTS = {
    "gegelu_limit": 20.0, "gegelu_least": 0.0, "embedding_scale": 1.0, "logit_scale": 1.0, "unused_logits": 0.0,
}  # fmt: skip
TABLES = ("block_rows", "block_columns", "unused_tokens")
ATTRIBUTES = {"scale": 0.5, "sparse_block_size": 32, "num_heads": 4}


@pytest.mark.parametrize("what", ["nothing", *CONSTANTS, *TABLES, *ATTRIBUTES])
def test_the_proof_finds_an_altered_constant(what: str, small: Small, tmp_path: Path) -> None:
    decoder = convert(small("phi3-small"), tmp_path)
    model = onnx.load(tmp_path / "model.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        if tensor.name == what:
            values = onnx.numpy_helper.to_array(tensor).copy()
            values[...] = CONSTANTS.get(what, values + 1)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, what))
    sparse = next(node for node in model.graph.node if node.op_type == "SparseAttention")
    for attribute in sparse.attribute:
        if attribute.name == what:
            attribute.CopyFrom(onnx.helper.make_attribute(what, ATTRIBUTES[what]))
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    stored = open_stored(tmp_path, decoder, F32)
    with Checkpoint.open(small("phi3-small")) as checkpoint:
        report = check_stored(
            checkpoint,
            decoder,
            stored,
            context_length=256,
            codec=lambda weight, start, rows: F32.decode(F32.encode(weight, rows, start=start)),
        )
    stored.close()
    assert len(report.faults) == int(what != "nothing"), report.faults
    assert all(what in fault for fault in report.faults)


def test_longrope_across_its_switch_at_8192(small: Small, tmp_path: Path) -> None:
    """Factors and scale change for all positions at once; the reference is held to the formulas above."""
    narrow = {"hidden_size": 32, "ff_intermediate_size": 64, "num_hidden_layers": 2}
    checkpoint = small("phi3-small-128k", **narrow, num_attention_heads=2)
    decoder = convert(checkpoint, tmp_path, context_length=8300)
    config = json.loads((tmp_path / "genai_config.json").read_text())
    assert config["model"]["type"] == "phi3small", "the one for which genai reads anew at 8,192"
    ids = random_ids(decoder, 8200)
    runtime = open_runtime(tmp_path, context_length=8300, threads=1)
    runtime.append(ids[:8185])
    steps = np.stack([runtime.append([token]) for token in ids[8185:]])
    runtime.close()
    with Checkpoint.open(checkpoint) as opened:
        below, above = (reference.logits(opened, decoder, ids[:n])[-1] for n in (8192, 8200))
    np.testing.assert_allclose(steps[6], below, rtol=1e-6, atol=TOLERANCE)
    np.testing.assert_allclose(steps[14], above, rtol=1e-6, atol=TOLERANCE)
    long = Phi3Small(checkpoint).logits(ids[:40], total=8193)
    short = Phi3Small(checkpoint).logits(ids[:40])
    assert np.abs(long - short).max() > 0.02, "the switch must show"

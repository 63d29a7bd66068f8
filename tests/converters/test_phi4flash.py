"""Phi-4-mini-flash-reasoning (SambaY): reference and graph against the oracle, in every way of feeding it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from benchmarks.hybrid_shapes import HYBRID_SHAPES
from converters import reference
from converters.checkpoint import Checkpoint
from converters.decoder import Weight
from converters.forward import Floats
from converters.models import describe
from converters.onnx import open_stored
from converters.verify import check_stored
from tests.converters.onnx_support import F32, TOLERANCE, convert, generator, random_ids, uniform
from tests.converters.sambay_oracle import SambaY

Tiny = Callable[..., Path]
TINY = [name for name in HYBRID_SHAPES if name != "phi4-flash-full"]
FEEDS = {"prefill": [60], "chunks": [17, 1, 42], "decode": [9] + [1] * 51}
# The window of 12 and its slack of 64 end before 200 tokens, and the cache is moved on the way.
LONG = 200


@pytest.mark.parametrize("name", TINY)
def test_the_reference_is_the_equations(name: str, tiny: Tiny) -> None:
    with Checkpoint.open(tiny(name)) as checkpoint:
        decoder = describe(checkpoint)
        ids = random_ids(decoder, 60)
        expected = SambaY(tiny(name)).logits(ids)
        np.testing.assert_allclose(
            reference.logits(checkpoint, decoder, ids), expected, rtol=0, atol=TOLERANCE
        )
        windows = np.array([ids[:30], ids[30:]])
        states = reference.hidden_states(checkpoint, decoder, windows)
        np.testing.assert_allclose(
            reference.head_logits(checkpoint, decoder, states[0]), expected[:30], rtol=0, atol=TOLERANCE
        )
        assert not checkpoint.unread()


@pytest.mark.parametrize("name", TINY)
def test_genai_is_the_equations(name: str, tiny: Tiny, tmp_path: Path) -> None:
    decoder = convert(tiny(name), tmp_path)
    ids = random_ids(decoder, 60)
    expected = SambaY(tiny(name)).logits(ids)
    for feed, sizes in FEEDS.items():
        run, start, found = generator(tmp_path, 256), 0, []
        for size in sizes:
            run.append_tokens(np.array([ids[start : start + size]], np.int32))
            found.append(np.array(run.get_output("logits"))[0])
            start += size
        np.testing.assert_allclose(np.concatenate(found), expected, rtol=0, atol=TOLERANCE, err_msg=feed)


def test_the_windowed_cache_forgets_what_no_query_sees(tiny: Tiny, tmp_path: Path) -> None:
    decoder = convert(tiny("phi4-flash"), tmp_path)
    ids = random_ids(decoder, LONG)
    run = generator(tmp_path, 256)
    run.append_tokens(np.array([ids[:150]], np.int32))
    for token in ids[150:]:
        run.append_tokens(np.array([[token]], np.int32))
    expected = SambaY(tiny("phi4-flash")).logits(ids)[-1]
    np.testing.assert_allclose(run.get_output("logits")[0, -1], expected, rtol=0, atol=TOLERANCE)


def test_a_context_within_the_window_needs_no_windowed_cache(tiny: Tiny, tmp_path: Path) -> None:
    checkpoint = tiny("phi4-flash", sliding_window=64)
    decoder = convert(checkpoint, tmp_path, context_length=64)
    ids = random_ids(decoder, 60)
    run = generator(tmp_path, 64)
    run.append_tokens(np.array([ids], np.int32))
    np.testing.assert_allclose(
        run.get_output("logits")[0], SambaY(checkpoint).logits(ids), rtol=0, atol=TOLERANCE
    )


def test_int4_is_the_reference_on_the_dequantized_weights(tiny: Tiny, tmp_path: Path) -> None:
    checkpoint, recipe = tiny("phi4-flash"), uniform("int4")
    decoder = convert(checkpoint, tmp_path, recipe, accuracy_level=0)
    ids = random_ids(decoder, 40)

    def through(weight: Weight, start: int, rows: NDArray[Any]) -> Floats:
        return recipe.decode(recipe.encode(weight, rows, start=start))

    with Checkpoint.open(checkpoint) as opened:
        expected = reference.logits(opened, decoder, ids, transform=through)
        plain = reference.logits(opened, decoder, ids)
    run = generator(tmp_path, 256)
    run.append_tokens(np.array([ids[:25]], np.int32))
    found = [np.array(run.get_output("logits"))[0]]
    for token in ids[25:]:
        run.append_tokens(np.array([[token]], np.int32))
        found.append(np.array(run.get_output("logits"))[0])
    np.testing.assert_allclose(np.concatenate(found), expected, rtol=0, atol=1e-3)
    assert np.abs(plain - expected).max() > 0.1, "the quantization must show, or the test says nothing"


CONSTANTS = {"layers.3.attention.start": 0.5, "layers.3.attention.shrink": 1.0}
ATTRIBUTES = {"scale": 0.5, "local_window_size": 13, "sliding_window_cache": 0, "epsilon": 1e-3}


@pytest.mark.parametrize("what", ["nothing", *CONSTANTS, *ATTRIBUTES])
def test_the_proof_finds_an_altered_constant(what: str, tiny: Tiny, tmp_path: Path) -> None:
    decoder = convert(tiny("phi4-flash"), tmp_path)
    model = onnx.load(tmp_path / "model.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        if tensor.name == what:
            values = np.array(CONSTANTS[what], np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, what))
    attributes = [a for node in model.graph.node for a in node.attribute if a.name == what]
    for attribute in attributes[:1]:
        attribute.CopyFrom(onnx.helper.make_attribute(what, ATTRIBUTES[what]))
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    stored = open_stored(tmp_path, decoder, F32)
    with Checkpoint.open(tiny("phi4-flash")) as checkpoint:
        report = check_stored(
            checkpoint,
            decoder,
            stored,
            context_length=256,
            codec=lambda weight, start, rows: F32.decode(F32.encode(weight, rows, start=start)),
        )
    stored.close()
    faults = [fault for fault in report.faults if what.split(".")[-1] in fault]
    assert len(faults) == len(report.faults) == int(what != "nothing"), report.faults

"""The walk: what it minimises, that its streams are the model's, and that stopping or spilling changes nothing."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from converters.checkpoint import Checkpoint
from converters.decoder import Decoder, Weight
from converters.errors import CheckpointError
from converters.forward import rms_norm
from converters.models import describe
from converters.reference import Resident, Streamed, hidden_states
from edge.calibration_cost import plan_calibration
from edge.calibration_text import CalibrationText
from quant import rtn
from quant.blocks import BLOCK, INT4, INT4_ASYM, BlockFormat, dequantize
from quant.calibrate import Calibration
from quant.codes import CodeStore
from quant.moments import Pair, moments_of, target

Tiny = Callable[..., Path]
Floats = NDArray[np.float32]


def tokens(count: int = 4, length: int = 48, vocab: int = 640) -> NDArray[np.int64]:
    return np.random.default_rng(1).integers(0, vocab, (count, length))


def int4(weight: Weight) -> BlockFormat | None:
    return INT4 if weight.shape[1] % BLOCK == 0 else None


def walk(checkpoint: Checkpoint, codes: Path, **options: Any) -> Calibration:
    decoder = describe(checkpoint)
    made = Calibration(checkpoint, decoder, tokens(), int4, CodeStore(codes), **options)
    while made.layer < len(decoder.layers):
        made.step()
    return made


def through(decoder: Decoder, codes: Path) -> Any:
    """The reference's transform that computes with the codes."""
    store = CodeStore(codes)

    def transform(weight: Weight, start: int, rows: NDArray[np.generic]) -> Floats:
        if weight not in store:
            return rows.astype(np.float32)
        return dequantize(store.rows(weight, INT4, start, start + len(rows)))

    return transform


@pytest.mark.parametrize("name", ["phi4", "phi4-mini", "phi3-mini-4k", "uneven"])
def test_both_streams_are_what_the_models_compute(tiny: Tiny, tmp_path: Path, name: str) -> None:
    with Checkpoint.open(tiny(name)) as checkpoint:
        decoder = describe(checkpoint)
        done = walk(checkpoint, tmp_path)
        gain = checkpoint.weight_rows(decoder.final_norm, 0, decoder.hidden_size).astype(np.float32)
        for stream, transform in ((done.exact, None), (done.coded, through(decoder, tmp_path))):
            expected = hidden_states(checkpoint, decoder, tokens(), transform=transform)
            for i in range(stream.count):
                found = rms_norm(stream.get(i), gain, decoder.norm_eps)
                # The same sums in blocks of other sizes, over two layers.
                np.testing.assert_allclose(found, expected[i], rtol=0, atol=2e-5)


def error_after(checkpoint: Checkpoint, decoder: Decoder, transform: Any) -> float:
    exact, found = (
        hidden_states(checkpoint, decoder, tokens(), transform=t).astype(np.float64)
        for t in (None, transform)
    )
    return float(np.square(exact - found).mean())


def test_the_model_is_nearer_than_with_rounding(tiny: Tiny, tmp_path: Path) -> None:
    with Checkpoint.open(tiny("phi4")) as checkpoint:
        decoder = describe(checkpoint)

        def rounded(weight: Weight, start: int, rows: NDArray[np.generic]) -> Floats:
            linear = weight.is_matrix and weight not in (decoder.embedding, decoder.lm_head)
            return dequantize(rtn.quantize(rows, INT4)) if linear else rows.astype(np.float32)

        before = error_after(checkpoint, decoder, rounded)
        walk(checkpoint, tmp_path)
        # Even for random weights and random tokens, which leave little to be clever about.
        assert error_after(checkpoint, decoder, through(decoder, tmp_path)) < 0.8 * before


@pytest.mark.parametrize("weighted", [False, True])
def test_the_target_is_the_least_squares_answer(weighted: bool) -> None:
    """W + (W (C - H) + B) H^-1 is the regression of W x + r on z, here done by numpy, tokens by their shares."""
    rng = np.random.default_rng(0)
    x, noise = rng.standard_normal((400, BLOCK)), rng.standard_normal((400, BLOCK))
    z = x + 0.3 * noise @ rng.standard_normal((BLOCK, BLOCK))
    weight, residual = rng.standard_normal((8, BLOCK)), rng.standard_normal((400, 8))
    shares = rng.uniform(0.01, 4, 400) if weighted else np.ones(400)
    pair = Pair(*(a.astype(np.float32) for a in (x, z, residual, shares)))
    moments = moments_of([pair])
    found = target(weight.astype(np.float32), moments, upstream=1.0, residual=1.0, damping=0.0, shrinkage=0.0)
    root = np.sqrt(shares)[:, None]
    expected = np.linalg.lstsq(z * root, (x @ weight.T + residual) * root)[0].T
    # float32 sums of 400 products, conditioned by about 30.
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_a_token_of_huge_size_does_not_decide(tiny: Tiny, tmp_path: Path) -> None:
    """The first token's stream is a thousand times the others' in many models: it counts as one token among many."""
    with Checkpoint.open(tiny("phi4")) as checkpoint:
        decoder = describe(checkpoint)
        walk = Calibration(checkpoint, decoder, tokens(), int4, CodeStore(tmp_path))
        stream = walk.exact.get(0).copy()
        stream[0] *= 1000
        walk.exact.put(0, stream)
        layer = decoder.layers[0]
        inputs = np.ones((stream.shape[0], layer.dense.down.shape[1]), np.float32)
        pair = walk._added(
            0, Resident(Streamed(checkpoint), layer), layer.dense.down, inputs, inputs, stream * 0
        )
        assert pair.shares is not None
        weighed = np.square(walk.exact.get(0)).mean(-1) * pair.shares
        # An error that is the same share of the stream costs the same at each token; epsilon takes a little off.
        np.testing.assert_allclose(weighed, 1, atol=1e-2)


def test_stopped_and_resumed_gives_the_same_codes(tiny: Tiny, tmp_path: Path) -> None:
    with Checkpoint.open(tiny("phi4")) as checkpoint:
        decoder = describe(checkpoint)
        walk(checkpoint, tmp_path / "whole")
        first = Calibration(checkpoint, decoder, tokens(), int4, CodeStore(tmp_path / "parts"))
        first.step()
        first.save(tmp_path / "streams")
        first.close()
        second = Calibration(checkpoint, decoder, tokens(), int4, CodeStore(tmp_path / "parts"))
        second.restore(tmp_path / "streams", 1)
        while second.layer < len(decoder.layers):
            second.step()
    assert_same_files(tmp_path / "whole", tmp_path / "parts")


def test_spilled_gives_the_same_codes(tiny: Tiny, tmp_path: Path) -> None:
    with Checkpoint.open(tiny("phi4")) as checkpoint:
        walk(checkpoint, tmp_path / "memory")
        walk(checkpoint, tmp_path / "disk", spill=tmp_path).close()
    assert_same_files(tmp_path / "memory", tmp_path / "disk")


def assert_same_files(first: Path, second: Path) -> None:
    names = sorted(p.name for p in first.iterdir())
    assert names == sorted(p.name for p in second.iterdir())
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_codes_come_back_by_rows(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((40, 64)).astype(np.float32)
    weight = Weight("layers.0.mlp.up", (40, 64), ())
    for fmt in (INT4, INT4_ASYM):
        blocks, store = rtn.quantize(rows, fmt), CodeStore(tmp_path / fmt.name)
        store.put(weight, blocks)
        assert np.array_equal(dequantize(store.rows(weight, fmt, 7, 23)), dequantize(blocks)[7:23])


def test_memory_keeps_to_what_is_stated(tiny: Tiny, tmp_path: Path) -> None:
    """numpy's allocations, traced: nothing grows with the number of layers, and the dry run's figure holds."""
    peaks = []
    for layers in (2, 6):
        directory = tiny("phi4", num_hidden_layers=layers, hidden_size=256, intermediate_size=1024)
        with Checkpoint.open(directory) as checkpoint:
            decoder = describe(checkpoint)
            stated = plan_calibration(CalibrationText("", "", tokens()), decoder, 1, spill=False).memory_bytes
            tracemalloc.start()
            try:
                walk(checkpoint, tmp_path / str(layers)).close()
                peaks.append(tracemalloc.get_traced_memory()[1])
            finally:
                tracemalloc.stop()
        assert peaks[-1] < stated
    # A layer of this model is 4 MB in float32.
    assert peaks[1] - peaks[0] < 1 << 20


def test_inputs_that_are_zero_name_the_weight(tiny: Tiny, tmp_path: Path) -> None:
    with Checkpoint.open(tiny("phi4")) as checkpoint:
        decoder = describe(checkpoint)
        stopped = decoder.layers[0].input_norm.parts[0].tensor
        read = checkpoint.weight_rows

        def zeroed(weight: Weight, start: int, stop: int) -> NDArray[np.generic]:
            rows = read(weight, start, stop)
            return rows * 0 if weight.parts[0].tensor == stopped else rows

        checkpoint.weight_rows = zeroed  # type: ignore[method-assign]
        with pytest.raises(
            CheckpointError, match=r"layers\.0\.attention\.q cannot be used: all inputs are zero"
        ):
            walk(checkpoint, tmp_path)

"""The writer: any order, any thread, the same bytes; every row once; memory that does not grow with depth."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest

from converters import onnx as onnx_room
from converters.checkpoint import Checkpoint
from converters.decoder import Decoder, Weight
from converters.errors import BundleError
from converters.models import describe
from converters.onnx.stored import StoredOnnx
from quant.blocks import Blocks
from quant.recipe import Recipe, Rule
from tests.converters.onnx_support import F32, convert, uniform

# int8 heads, asymmetric attention with one odd one out, 4-bit rest: every kind of tensor in one file.
MIXED = Recipe(
    "mixed",
    (
        Rule("embedding", "int8", "rtn"),
        Rule("lm_head", "bf16", "cast"),
        Rule("layers.1.attention.k", "f16", "cast"),
        Rule("*.attention.*", "int4_asym", "rtn"),
        Rule("*", "int4", "rtn"),
    ),
)


def _files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def _open(checkpoint: Path, directory: Path, recipe: Recipe) -> tuple[Decoder, onnx_room.OnnxWriter]:
    with Checkpoint.open(checkpoint) as opened:
        decoder = describe(opened)
    writer = onnx_room.open_writer(
        decoder, recipe, directory, context_length=64, checkpoint_directory=checkpoint
    )
    return decoder, writer


@pytest.mark.parametrize("threads", [1, 4])
def test_any_order_of_chunks_from_any_thread_gives_the_same_bytes(
    threads: int, tiny: Callable[..., Path], tmp_path: Path
) -> None:
    checkpoint = tiny("uneven")
    convert(checkpoint, tmp_path / "whole", MIXED, context_length=64)
    decoder, writer = _open(checkpoint, tmp_path / "chunks", MIXED)
    shuffle = random.Random(threads)
    chunks: list[tuple[Weight, int, int]] = []
    for weight in decoder.weights():
        cuts = sorted({0, weight.rows, *(shuffle.randrange(weight.rows) for _ in range(4))})
        chunks += [(weight, a, b) for a, b in pairwise(cuts)]
    shuffle.shuffle(chunks)
    with Checkpoint.open(checkpoint) as opened, ThreadPoolExecutor(threads) as pool:

        def store(chunk: tuple[Weight, int, int]) -> None:
            weight, start, stop = chunk
            writer.write(weight, start, MIXED.encode(weight, opened.weight_rows(weight, start, stop)))

        list(pool.map(store, chunks))
    writer.close()
    assert _files(tmp_path / "chunks") == _files(tmp_path / "whole")


def test_what_is_read_back_is_what_was_written(tiny: Callable[..., Path], tmp_path: Path) -> None:
    checkpoint = tiny("uneven")
    decoder = convert(checkpoint, tmp_path, MIXED)
    with Checkpoint.open(checkpoint) as opened, StoredOnnx(tmp_path, decoder, MIXED) as reader:
        for weight in decoder.weights():
            start, stop = weight.rows // 3, weight.rows - 1
            expected = MIXED.encode(weight, opened.weight_rows(weight, start, stop))
            found = reader.stored_rows(weight, start, stop)
            assert type(found) is type(expected)
            if isinstance(found, Blocks) and isinstance(expected, Blocks):
                assert found.format == expected.format
                np.testing.assert_array_equal(found.codes, expected.codes)
                np.testing.assert_array_equal(found.scales, expected.scales)
                np.testing.assert_array_equal(found.zeros, expected.zeros)
            else:
                assert found.dtype == expected.dtype
                np.testing.assert_array_equal(found, expected)


def test_a_missing_row_is_an_error_and_leaves_no_graph(tiny: Callable[..., Path], tmp_path: Path) -> None:
    decoder, writer = _open(tiny("odd-vocab"), tmp_path, F32)
    for weight in decoder.weights():
        rows = weight.rows - (weight is decoder.layers[1].dense.up)
        writer.write(weight, 0, np.zeros((rows, *weight.shape[1:]), np.float32))
    with pytest.raises(ValueError, match=r"layers\.1\.mlp\.up: row 255 was never written"):
        writer.close()
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx.data"]


def test_a_row_that_comes_twice_or_does_not_exist_is_an_error(
    tiny: Callable[..., Path], tmp_path: Path
) -> None:
    decoder, writer = _open(tiny("odd-vocab"), tmp_path, F32)
    weight = decoder.layers[0].o
    writer.write(weight, 2, np.zeros((4, 64), np.float32))
    with pytest.raises(ValueError, match="second time"):
        writer.write(weight, 5, np.zeros((1, 64), np.float32))
    with pytest.raises(ValueError, match="64 rows"):
        writer.write(weight, 63, np.zeros((2, 64), np.float32))
    for wrong in (np.zeros((1, 64), ml_dtypes.bfloat16), np.zeros((1, 32), np.float32)):
        with pytest.raises(ValueError, match="does not fit"):
            writer.write(weight, 10, wrong)
    writer.abort()
    writer.abort()


def test_no_byte_is_left_unplanned(tiny: Callable[..., Path], tmp_path: Path) -> None:
    """Gaps between tensors are zero and under a page; the graph file holds no weight."""
    decoder = convert(tiny("phi4-mini"), tmp_path, uniform("int4"))
    planned = onnx_room.planned_bytes(decoder, uniform("int4"), context_length=256)
    assert (tmp_path / "model.onnx.data").stat().st_size == planned
    assert (tmp_path / "model.onnx").stat().st_size < 8192 * len(decoder.layers)


def test_memory_does_not_grow_with_depth(tiny: Callable[..., Path], tmp_path: Path) -> None:
    """Four times the layers: the graph's nodes and one flag a row more, nothing of the weights' size."""
    peaks = {}
    for layers in (4, 16):
        checkpoint = tiny("phi4", num_hidden_layers=layers)
        decoder, writer = _open(checkpoint, tmp_path / f"warm{layers}", uniform("int8"))
        writer.abort()
        tracemalloc.start()
        decoder, writer = _open(checkpoint, tmp_path / str(layers), uniform("int8"))
        chunk = uniform("int8").encode(decoder.layers[0].dense.gate, np.ones((64, 128), np.float32))
        for layer in decoder.layers:
            for start in range(0, 256, 64):
                writer.write(layer.dense.gate, start, chunk)
                writer.write(layer.dense.up, start, chunk)
        peaks[layers] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        writer.abort()
    # A layer's two matrices alone are 73 KiB here; handles, flags and nodes take about 25 KiB a layer.
    assert (peaks[16] - peaks[4]) / 12 < 40_000


def test_a_damaged_variant_is_named(tiny: Callable[..., Path], tmp_path: Path) -> None:
    decoder = convert(tiny("odd-vocab"), tmp_path)
    data = tmp_path / "model.onnx.data"
    data.write_bytes(data.read_bytes()[:-10])
    with (
        StoredOnnx(tmp_path, decoder, F32) as reader,
        pytest.raises(BundleError, match=r"model\.onnx\.data ends inside lm_head"),
    ):
        reader.stored_rows(decoder.lm_head, 0, decoder.vocab_size)
    with (
        StoredOnnx(tmp_path, decoder, uniform("int8")) as reader,
        pytest.raises(BundleError, match=r"no tensor lm_head\.codes"),
    ):
        reader.stored_rows(decoder.lm_head, 0, 1)
    graph = (tmp_path / "model.onnx").read_bytes()
    (tmp_path / "model.onnx").write_bytes(graph.replace(b"model.onnx.data", b"../.ssh/id_rsa."))
    with pytest.raises(BundleError, match="lies in"):
        StoredOnnx(tmp_path, decoder, F32)
    (tmp_path / "model.onnx").write_bytes(graph[: len(graph) // 2])
    with pytest.raises(BundleError, match="cannot be read"):
        StoredOnnx(tmp_path, decoder, F32)
    model = onnx.load_model_from_string(graph)
    model.graph.initializer[-1].external_data[1].value = "-4096"
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match="-4096"):
        StoredOnnx(tmp_path, decoder, F32)
    (tmp_path / "model.onnx").write_bytes(graph)
    data.unlink()
    with pytest.raises(BundleError, match="cannot be opened"):
        StoredOnnx(tmp_path, decoder, F32)

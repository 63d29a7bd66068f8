"""A GGUF in shards: the same bytes as before, and llama.cpp computes the same from them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader, GGUFWriter

from converters.errors import UnsupportedError
from converters.gguf.reader import Gguf
from converters.gguf.split import split
from edge.cli import main
from edge.engine_settings import EngineSettings
from edge.runtimes import llamacpp


@pytest.fixture(scope="module")
def whole(tiny: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    bundle = tmp_path_factory.mktemp("split") / "b"
    assert main(["convert", str(tiny("phi4")), "-t", "android", "--no-proof", "-o", str(bundle)]) == 0
    return next(bundle.glob("*.gguf"))


@pytest.mark.parametrize("shard_bytes", [1, 100_000, 1 << 30])
def test_every_tensor_and_key_is_there_once_bit_for_bit(
    whole: Path, tmp_path: Path, shard_bytes: int
) -> None:
    paths = split(whole, tmp_path, "m", shard_bytes=shard_bytes)
    with Gguf.open(whole) as source:
        seen = {}
        for i, path in enumerate(paths):
            with Gguf.open(path) as shard:
                metadata = dict(shard.metadata)
                assert [metadata.pop("split.no"), metadata.pop("split.count")] == [i, len(paths)]
                assert metadata.pop("split.tensors.count") == len(source.tensors)
                assert metadata == (source.metadata if i == 0 else {})
                for name, tensor in shard.tensors.items():
                    assert name not in seen
                    seen[name] = (tensor.type, tensor.shape, b"".join(shard.stored(name)))
        expected = {n: (t.type, t.shape, b"".join(source.stored(n))) for n, t in source.tensors.items()}
    assert seen == expected
    assert len(paths) == {1: len(expected), 1 << 30: 1}.get(shard_bytes, len(paths))


def test_shards_stay_under_the_size_but_for_one_large_tensor(whole: Path, tmp_path: Path) -> None:
    limit = 100_000
    for path in split(whole, tmp_path, "m", shard_bytes=limit):
        tensors = GGUFReader(path).tensors
        assert sum(t.n_bytes for t in tensors) <= limit or len(tensors) == 1


def test_llama_cpp_computes_the_same_from_the_shards(whole: Path, tmp_path: Path) -> None:
    first, *others = split(whole, tmp_path, "m", shard_bytes=60_000)
    assert others
    logits = []
    for path in (whole, first):
        runtime = llamacpp.load(path, context_length=256, settings=EngineSettings(), exact=True)
        logits.append(runtime.teacher_forced([5, 9, 2, 40, 7]))
        runtime.close()
    np.testing.assert_array_equal(logits[0], logits[1])  # the same weights, kernels and thread count


def test_an_alignment_of_its_own_holds_in_every_shard(tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "a.gguf", "llama")
    writer.add_custom_alignment(128)
    for i in range(3):
        writer.add_tensor(f"t{i}", np.full(5, i, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    for i, path in enumerate(split(tmp_path / "a.gguf", tmp_path, "m", shard_bytes=1)):
        with Gguf.open(path) as shard:
            assert shard.header.alignment == 128
            assert shard.read(f"t{i}").tolist() == [i] * 5


def test_a_shard_is_not_split_again(whole: Path, tmp_path: Path) -> None:
    (shard,) = split(whole, tmp_path, "m", shard_bytes=1 << 30)
    with pytest.raises(UnsupportedError, match="one shard of a model already"):
        split(shard, tmp_path, "n", shard_bytes=1 << 20)

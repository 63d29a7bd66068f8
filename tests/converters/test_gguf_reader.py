"""The GGUF reader against the `gguf` package's own, and against files that lie."""

from __future__ import annotations

import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.errors import CheckpointError, UnsupportedError
from converters.gguf.reader import Gguf
from tests.attacks import ggufs

KINDS = [Kind.F32, Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q5_1]
KEYS = {
    "a.u8": (gguf.GGUFValueType.UINT8, 200),
    "a.i8": (gguf.GGUFValueType.INT8, -3),
    "a.u16": (gguf.GGUFValueType.UINT16, 60000),
    "a.i16": (gguf.GGUFValueType.INT16, -30000),
    "a.u32": (gguf.GGUFValueType.UINT32, 1 << 31),
    "a.i32": (gguf.GGUFValueType.INT32, -(1 << 30)),
    "a.u64": (gguf.GGUFValueType.UINT64, 1 << 63),
    "a.i64": (gguf.GGUFValueType.INT64, -(1 << 62)),
    "a.f32": (gguf.GGUFValueType.FLOAT32, 0.5),
    "a.f64": (gguf.GGUFValueType.FLOAT64, 0.1),
    "a.bool": (gguf.GGUFValueType.BOOL, True),
    "a.text": (gguf.GGUFValueType.STRING, "käse 🙂"),
}


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "sample.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    for key, (kind, value) in KEYS.items():
        writer.add_key_value(key, value, kind)
    writer.add_array("a.strings", ["x", "", "Ġhello"])
    writer.add_array("a.floats", [0.5, -1.5])
    writer.add_array("a.bools", [True, False])
    rng = np.random.default_rng(0)
    for kind in KINDS:
        rows = rng.standard_normal((7, 96), np.float32)
        writer.add_tensor(f"t.{kind.name}", gguf.quants.quantize(rows, kind), raw_dtype=kind)
    writer.add_tensor("vector", rng.standard_normal(5, np.float32))
    writer.add_tensor("experts", rng.standard_normal((2, 3, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_metadata_equals_what_was_written(sample: Path) -> None:
    with Gguf.open(sample) as file:
        assert {k: file.metadata[k] for k in KEYS} == {k: v for k, (_, v) in KEYS.items()}
        assert file.metadata["a.strings"] == ["x", "", "Ġhello"]
        assert file.metadata["a.floats"] == [0.5, -1.5]
        assert file.metadata["a.bools"] == [True, False]


def test_rows_equal_the_gguf_package(sample: Path) -> None:
    with Gguf.open(sample) as file:
        theirs = {t.name: t for t in gguf.GGUFReader(sample).tensors}
        assert set(file.tensors) == set(theirs)
        for name, tensor in theirs.items():
            expected = gguf.dequantize(tensor.data, tensor.tensor_type)
            assert file.tensors[name].shape == expected.shape
            np.testing.assert_array_equal(file.read(name).reshape(expected.shape), expected)


@settings(derandomize=True)
@given(bounds=st.tuples(st.integers(0, 7), st.integers(0, 7)).map(sorted), kind=st.sampled_from(KINDS))
def test_row_ranges_are_slices(sample: Path, bounds: list[int], kind: Kind) -> None:
    with Gguf.open(sample) as file:
        name = f"t.{kind.name}"
        np.testing.assert_array_equal(file.read(name, *bounds), file.read(name)[slice(*bounds)])


def test_reads_from_many_threads(sample: Path) -> None:
    with Gguf.open(sample) as file, ThreadPoolExecutor(8) as pool:
        whole = file.read("t.Q4_1")
        for i, rows in enumerate(pool.map(lambda i: file.read("t.Q4_1", i % 7, i % 7 + 1), range(200))):
            np.testing.assert_array_equal(rows[0], whole[i % 7])


def test_missing_tensor_is_named(sample: Path) -> None:
    with Gguf.open(sample) as file, pytest.raises(CheckpointError, match="'nowhere'"):
        file.read("nowhere")


def test_every_truncation_is_an_error(sample: Path, tmp_path: Path) -> None:
    data, cut = sample.read_bytes(), tmp_path / "cut.gguf"
    end = max(t.offset + t.nbytes for t in _tensors(sample))
    for length in [*range(0, 1400, 7), *range(1400, end, 97), end - 1]:
        cut.write_bytes(data[:length])
        with pytest.raises(CheckpointError):
            Gguf.open(cut)


@settings(max_examples=300, derandomize=True)
@given(changes=st.dictionaries(st.integers(0, 1600), st.integers(0, 255), min_size=1, max_size=6))
def test_changed_bytes_are_read_or_refused(
    sample: Path, tmp_path_factory: pytest.TempPathFactory, changes: dict[int, int]
) -> None:
    data = bytearray(sample.read_bytes())
    for at, value in changes.items():
        data[at] = value
    path = tmp_path_factory.getbasetemp() / "changed.gguf"
    path.write_bytes(data)
    try:
        with Gguf.open(path) as file:
            for name in file.tensors:
                file.read(name)
    except (CheckpointError, UnsupportedError):
        pass


def _tensors(path: Path) -> list:
    with Gguf.open(path) as file:
        return list(file.tensors.values())


@pytest.mark.parametrize("name", ggufs.HOSTILE)
def test_hostile_header_is_named_and_costs_nothing(tmp_path: Path, name: str) -> None:
    make, named = ggufs.HOSTILE[name]
    path = tmp_path / "hostile.gguf"
    path.write_bytes(make())
    tracemalloc.start()
    try:
        with pytest.raises((CheckpointError, UnsupportedError), match=named) as caught:
            Gguf.open(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert str(path) in caught.value.cause
    # The files are a few KiB; a reader that believed their counts would ask for GiB.
    assert peak < 1 << 22


def test_a_type_without_decoder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "i32.gguf"
    path.write_bytes(ggufs.file([], [ggufs.tensor(kind=int(Kind.I32))]))
    with Gguf.open(path) as file, pytest.raises(UnsupportedError, match="I32"):
        file.read("t")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="No such file"):
        Gguf.open(tmp_path / "none.gguf")

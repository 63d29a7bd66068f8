"""Whatever a safetensors file holds: the reader takes only what the safetensors package takes, and alike."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors import deserialize as safetensors_deserialize

from converters.checkpoint import Checkpoint
from converters.errors import CheckpointError
from converters.row_log import RowLog
from converters.strict_json import parse_object
from tests.attacks.checkpoints import (
    DATA,
    HEADER,
    INDEX,
    SHARDS,
    SINGLE,
    A,
    B,
    pack,
    write_index,
    write_shards,
    write_single,
)

# No deadline: the two shared cores of a test machine may be busy elsewhere.
fuzz = settings(max_examples=300, deadline=None, derandomize=True)

WIDTH = {"BF16": 2, "F16": 2, "F32": 4, "F64": 8}
SOUND = pack({"__metadata__": {"format": "pt"}, **HEADER})


def _refused(directory: Path) -> str | None:
    """The cause with which the directory is refused in the one allowed way; None where it opens."""
    try:
        Checkpoint.open(directory).close()
    except CheckpointError as error:
        return error.cause
    return None


def _open_and_read(content: bytes) -> dict[str, tuple[str, list[int], bytes]] | None:
    """Every tensor of a single-file checkpoint, or None where it is refused."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        write_single(directory, content)
        cause = _refused(directory)
        if cause is not None:
            assert cause.isprintable()
            assert cause.startswith(SINGLE)
            return None
        with Checkpoint.open(directory) as checkpoint:
            return {
                name: (info.dtype, list(info.shape), checkpoint.read(name).tobytes())
                for name, info in checkpoint.tensors.items()
            }


def _assert_alike(content: bytes) -> None:
    ours = _open_and_read(content)
    if ours is None:
        return
    theirs = {
        name: (view["dtype"], list(view["shape"]), bytes(view["data"]))
        for name, view in safetensors_deserialize(content)
    }
    assert ours == theirs


@st.composite
def sound_files(draw: st.DrawFn) -> bytes:
    """Files that a writer may produce: any order of names, any metadata, padding, scalars, empty tensors."""
    names = draw(
        st.lists(st.text(st.characters(categories=["L", "N", "P"]), min_size=1), max_size=4, unique=True)
    )
    names = [name for name in names if name != "__metadata__"] or ["t"]
    header: dict[str, Any] = {}
    at = 0
    for name in names:
        dtype = draw(st.sampled_from(sorted(WIDTH)))
        shape = draw(st.lists(st.integers(0, 4), max_size=3))
        size = int(np.prod(shape)) * WIDTH[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    if draw(st.booleans()):
        header["__metadata__"] = draw(st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2))
    shuffled = {name: header[name] for name in draw(st.permutations(sorted(header)))}
    raw = json.dumps(shuffled, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    padding = b" " * draw(st.integers(0, 8))
    return pack(raw + padding, draw(st.binary(min_size=at, max_size=at)))


@fuzz
@given(sound_files())
def test_sound_files_are_read_as_the_package_reads_them(content: bytes) -> None:
    assert _open_and_read(content) is not None
    _assert_alike(content)


@fuzz
@given(st.data())
def test_damaged_bytes_are_refused_or_read_alike(data: st.DataObject) -> None:
    content = bytearray(SOUND)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(0, len(content) - 1)))
        content[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    _assert_alike(bytes(content[: data.draw(st.integers(0, len(content)))]))
    _assert_alike(bytes(content))


@fuzz
@given(st.binary(max_size=200))
@example(b"")
def test_any_bytes_are_refused_or_read_alike(content: bytes) -> None:
    _assert_alike(content)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NEAR = st.integers(-1, 40) | st.sampled_from([2**31, 2**32, 2**63, 2**64])
ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "BF16", "F64", "I8", "F8_E4M3"]) | JSON,
        "shape": st.lists(NEAR, max_size=3) | JSON,
        "data_offsets": st.lists(NEAR, min_size=2, max_size=2) | JSON,
    }
)


@fuzz
@given(
    st.dictionaries(st.sampled_from(["a", "b", "c", "__metadata__"]), ENTRY | st.just(A) | st.just(B) | JSON)
)
@example({"a": A, "b": B})
@example({"a": A | {"shape": [3, 2]}, "b": B})
@example({"a": A | {"shape": [2**32, 2**32]}, "b": B})
def test_any_header_is_refused_or_read_alike(header: dict[str, Any]) -> None:
    _assert_alike(pack(header, DATA))


@fuzz
@given(
    JSON
    | st.dictionaries(st.sampled_from(["a", "b", "c"]), st.sampled_from([*SHARDS, "x.safetensors", "../x"]))
)
@example({"a": SHARDS[0], "b": SHARDS[1]})
def test_only_the_true_index_is_taken(weight_map: Any) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        write_shards(directory)
        write_index(directory, weight_map)
        cause = _refused(directory)
    if weight_map == {"a": SHARDS[0], "b": SHARDS[1]}:
        assert cause is None
    else:
        assert cause is not None
        assert cause.isprintable()
        assert INDEX in cause or "missing in" in cause


@fuzz
@given(st.dictionaries(st.text(max_size=8), JSON, max_size=4))
def test_json_means_what_the_standard_parser_says_or_is_refused(value: dict[str, Any]) -> None:
    try:
        text = json.dumps(value, allow_nan=False)
    except ValueError:
        with pytest.raises(CheckpointError, match="is no JSON number"):
            parse_object(bytearray(json.dumps(value).encode()), "config.json")
    else:
        assert parse_object(bytearray(text.encode()), "config.json") == value


@fuzz
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=12))
def test_a_row_log_knows_exactly_the_rows_it_was_told(reads: list[tuple[int, int]]) -> None:
    log, told, count = RowLog(), set[int](), 0
    for start, stop in reads:
        log.add("t", start, stop)
        told |= set(range(start, stop))
        count += max(0, stop - start)
    assert log.counts().get("t", 0) == count
    # Rows beyond the tensor never come: Checkpoint refuses them before it logs.
    top = max(told, default=-1) + 1
    assert log.covers("t", top) == (told == set(range(top)))

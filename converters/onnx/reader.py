"""Read an own ONNX variant's weights back, by neutral name: what the proof compares with the checkpoint.

Offsets come from the graph file, not from the plan, so that a graph that points at the wrong bytes shows.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # protobuf has no types
from numpy.typing import NDArray

from converters.decoder import Decoder, Weight
from converters.errors import BundleError
from converters.onnx.genai_config import GRAPH_FILE
from converters.onnx.layout import DATA_FILE
from converters.onnx.rotary import COS, SIN
from converters.onnx.tensors import Stored, Tensor, stored_weights
from converters.writer import Encoded, Storages


class OnnxReader:
    """An open variant that `open_writer` wrote. Positioned reads, from any thread. `graph`: without its weights."""

    def __init__(self, directory: Path, decoder: Decoder, recipe: Storages) -> None:
        """BundleError when the graph or its data is missing or not as this project writes it."""
        self._path = directory / DATA_FILE
        self._stored: dict[str, Stored] = {
            weight.name: stored for stored in stored_weights(decoder, recipe) for weight in stored.weights
        }
        self.graph = _graph(directory / GRAPH_FILE)
        self._places = _external_tensors(self.graph, directory / GRAPH_FILE)
        try:
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise _damaged(f"{self._path} cannot be opened: {error.strerror}") from None

    def stored_rows(self, weight: Weight, start: int, stop: int) -> Encoded:
        """Rows [start, stop) of `weight` as stored."""
        stored = self._stored[weight.name]
        first = stored.first_row(weight)
        return stored.unpack([self._rows(t, first + start, first + stop) for t in stored.tensors])

    def rotary_tables(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(cos, sin), each float32 [rows, dim / 2]: the short table, then, where there is one, the long one."""
        tables = []
        for name in (COS, SIN):
            if name not in self._places:
                raise _damaged(f"{GRAPH_FILE} has no tensor {name}")
            dims = self._places[name][2]
            tensor = Tensor(name, np.dtype(np.float32), dims)
            tables.append(self._rows(tensor, 0, dims[0]))
        return tables[0], tables[1]

    def close(self) -> None:
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _rows(self, tensor: Tensor, start: int, stop: int) -> NDArray[Any]:
        if tensor.name not in self._places:
            raise _damaged(f"{GRAPH_FILE} has no tensor {tensor.name}")
        offset, nbytes, _ = self._places[tensor.name]
        if nbytes != tensor.nbytes:
            raise _damaged(f"{GRAPH_FILE}: {tensor.name} has {nbytes} bytes, not {tensor.nbytes}")
        rows = np.empty((stop - start, *tensor.dims[1:]), tensor.dtype)
        left, offset = rows.view(np.uint8).reshape(-1).data, offset + start * tensor.row_bytes
        while left:
            count = os.preadv(self._descriptor, [left], offset)
            if count == 0:
                raise _damaged(f"{self._path} ends inside {tensor.name}")
            left, offset = left[count:], offset + count
        return rows


def tensor_bytes(directory: Path) -> dict[str, int]:
    """Bytes of every tensor in the data file, from the graph alone. BundleError when that is damaged."""
    graph = directory / GRAPH_FILE
    return {name: nbytes for name, (_, nbytes, _) in _external_tensors(_graph(graph), graph).items()}


def _graph(path: Path) -> onnx.GraphProto:
    try:
        return onnx.load(path, load_external_data=False).graph
    except (OSError, DecodeError) as error:
        raise _damaged(f"{path} cannot be read: {error}") from None


def _external_tensors(graph: onnx.GraphProto, path: Path) -> dict[str, tuple[int, int, tuple[int, ...]]]:
    """(offset, bytes, shape) of every tensor in the data file; second views of the same bytes keep the name."""
    places: dict[str, tuple[int, int, tuple[int, ...]]] = {}
    for tensor in graph.initializer:
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        if entries.get("location") != DATA_FILE:
            raise _damaged(f"{path}: {tensor.name} lies in {entries.get('location')!r}, not in {DATA_FILE}")
        numbers = [entries.get(key, "") for key in ("offset", "length")]
        if not all(number.isascii() and number.isdigit() for number in numbers):
            raise _damaged(f"{path}: {tensor.name} has offset and length {numbers}")
        place = (int(numbers[0]), int(numbers[1]), tuple(tensor.dims))
        places[tensor.name.removesuffix(".rows")] = place
    return places


def _damaged(cause: str) -> BundleError:
    return BundleError(cause, hint="try: edge verify on the bundle, or convert again")

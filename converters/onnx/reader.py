"""Read an own ONNX variant's weights back, by neutral name: what the proof compares with the checkpoint.

Offsets come from the graph files, not from the plan, so that a graph that points at the wrong bytes shows.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # protobuf has no types
from numpy.typing import NDArray

from converters.decoder import Weight
from converters.errors import BundleError
from converters.onnx.rotary import COS, SIN
from converters.onnx.tensors import Stored, Tensor
from converters.writer import Encoded


@dataclass(frozen=True)
class Place:
    """Where a graph says that a tensor lies."""

    file: str
    offset: int
    nbytes: int
    dims: tuple[int, ...]


class OnnxReader:
    """An open variant that `open_writer` wrote. Positioned reads, from any thread.

    `graphs`: by file name, without their weights. Two graphs that name one tensor must mean the same bytes.
    """

    def __init__(
        self, directory: Path, stored: Sequence[Stored], graphs: Sequence[str], data: Sequence[str]
    ) -> None:
        """BundleError when a graph or a data file is missing or not as this project writes it."""
        self._directory = directory
        self._stored: dict[str, Stored] = {w.name: each for each in stored for w in each.weights}
        self.graphs: dict[str, onnx.GraphProto] = {}
        self._places: dict[str, Place] = {}
        for name in graphs:
            self.graphs[name] = _graph(directory / name)
            for tensor, place in _external_tensors(self.graphs[name], directory / name, data).items():
                known = self._places.setdefault(tensor, place)
                if (known.file, known.offset, known.nbytes) != (place.file, place.offset, place.nbytes):
                    raise _damaged(f"{directory / name}: {tensor} lies elsewhere than in another graph")
        self._descriptors: dict[str, int] = {}
        try:
            for file in data:
                self._descriptors[file] = os.open(directory / file, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            self.close()
            raise _damaged(f"{directory / file} cannot be opened: {error.strerror}") from None

    def stored_rows(self, weight: Weight, start: int, stop: int) -> Encoded:
        """Rows [start, stop) of `weight` as stored."""
        stored = self._stored[weight.name]
        first, last = (stored.first_row(weight) + stored.turns * row for row in (start, stop - 1))
        rows = (self.tensor_rows(t, first, last + 1)[:: stored.turns] for t in stored.tensors)
        return stored.unpack([np.ascontiguousarray(array) for array in rows])

    def rotary_tables(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(cos, sin), each float32 [rows, dim / 2]: the short table, then, where there is one, the long one."""
        tables = []
        for name in (COS, SIN):
            dims = self._place(name).dims
            tables.append(self.tensor_rows(Tensor(name, np.dtype(np.float32), dims), 0, dims[0]))
        return tables[0], tables[1]

    def close(self) -> None:
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _place(self, tensor: str) -> Place:
        if tensor not in self._places:
            raise _damaged(f"{', '.join(self.graphs)} has no tensor {tensor}")
        return self._places[tensor]

    def tensor_rows(self, tensor: Tensor, start: int, stop: int) -> NDArray[Any]:
        """Rows [start, stop) of a tensor as its bytes are."""
        place = self._place(tensor.name)
        if place.nbytes != tensor.nbytes:
            raise _damaged(
                f"{', '.join(self.graphs)}: {tensor.name} has {place.nbytes} bytes, not {tensor.nbytes}"
            )
        rows = np.empty((stop - start, *tensor.dims[1:]), tensor.dtype)
        left, offset = rows.view(np.uint8).reshape(-1).data, place.offset + start * tensor.row_bytes
        while left:
            count = os.preadv(self._descriptors[place.file], [left], offset)
            if count == 0:
                raise _damaged(f"{self._directory / place.file} ends inside {tensor.name}")
            left, offset = left[count:], offset + count
        return rows


def tensor_bytes(directory: Path) -> Mapping[str, int]:
    """Bytes of every tensor in the data files, from the graphs alone. BundleError when one is damaged."""
    sizes: dict[str, int] = {}
    for graph in sorted(directory.glob("*.onnx")):
        places = _external_tensors(_graph(graph), graph, None)
        sizes |= {name: place.nbytes for name, place in places.items()}
    return sizes


def _graph(path: Path) -> onnx.GraphProto:
    try:
        return onnx.load(path, load_external_data=False).graph
    except (OSError, DecodeError) as error:
        raise _damaged(f"{path} cannot be read: {error}") from None


def _external_tensors(graph: onnx.GraphProto, path: Path, data: Sequence[str] | None) -> dict[str, Place]:
    """Every tensor in a data file; second views of the same bytes keep the name. `data`: the files it may lie in."""
    places: dict[str, Place] = {}
    for tensor in graph.initializer:
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        file = entries.get("location", "")
        if data is not None and file not in data:
            raise _damaged(f"{path}: {tensor.name} lies in {file!r}, not in {' or '.join(data)}")
        numbers = [entries.get(key, "") for key in ("offset", "length")]
        if not all(number.isascii() and number.isdigit() for number in numbers):
            raise _damaged(f"{path}: {tensor.name} has offset and length {numbers}")
        place = Place(file, int(numbers[0]), int(numbers[1]), tuple(tensor.dims))
        places[tensor.name.removesuffix(".rows")] = place
    return places


def _damaged(cause: str) -> BundleError:
    return BundleError(cause, hint="try: edge verify on the bundle, or convert again")

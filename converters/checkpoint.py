"""A checkpoint directory, read lazily: headers at once, tensor rows on demand, never more in memory.

Reads are positioned reads into fresh arrays. No memory map: touched pages of a map count as resident, and
where a file shrinks, a map kills the process but a short read is an error.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from converters.checkpoint_files import (
    CONFIG,
    check_index,
    find_shards,
    list_directory,
    open_inside,
    read_json,
)
from converters.decoder import Rows, Weight
from converters.errors import CheckpointError
from converters.row_log import RowLog
from converters.safetensors_header import DTYPES, DtypeName, TensorInfo, read_header, read_into
from converters.strict_json import DAMAGED, shown

__all__ = ["Checkpoint", "TensorInfo"]

_MISMATCH = "config.json and the weights do not belong together; fetch the whole checkpoint again"


class Checkpoint:
    """An open checkpoint. `read` and `weight_rows` may be called from any number of threads."""

    directory: Path
    config: dict[str, Any]
    tensors: Mapping[str, TensorInfo]

    def __init__(
        self,
        directory: Path,
        config: dict[str, Any],
        tensors: Iterable[TensorInfo],
        descriptors: dict[Path, int],
    ) -> None:
        self.directory = directory
        self.config = config
        self.tensors = MappingProxyType({tensor.name: tensor for tensor in tensors})
        self._descriptors = descriptors
        self._log = RowLog()

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Open a Hugging Face layout: config.json and model.safetensors, or its index and shards.

        Every header is checked against its file and the index first. Raises CheckpointError that names the
        file, and the tensor where one is at fault.
        """
        directory, present = list_directory(directory)
        config = read_json(directory, CONFIG)
        names, index = find_shards(directory, present)
        descriptors: dict[Path, int] = {}
        try:
            tensors: dict[str, TensorInfo] = {}
            for name in names:
                file = directory / name
                descriptors[file] = open_inside(directory, name)
                for tensor in read_header(descriptors[file], file):
                    _add(tensors, tensor)
            if index is not None:
                check_index(tensors, index)
        except BaseException:
            for descriptor in descriptors.values():
                os.close(descriptor)
            raise
        return cls(directory, config, tensors.values(), descriptors)

    def attach(self, name: str, directory: Path, file: str) -> None:
        """Open one more safetensors file, in `directory` (absolute), its tensors called `name`:TENSOR.

        Not while another thread reads. Raises CheckpointError as `open` does.
        """
        place = directory / file
        descriptor = open_inside(directory, file)
        try:
            tensors = dict(self.tensors)
            for tensor in read_header(descriptor, place):
                _add(tensors, replace(tensor, name=f"{name}:{tensor.name}"))
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptors[place] = descriptor
        self.tensors = MappingProxyType(tensors)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Rows [start, stop) of tensor `name` as stored: [stop - start, ...], bfloat16 as ml_dtypes.bfloat16.

        A scalar is one row: shape (1,). Raises CheckpointError for a tensor that is not there, and IndexError
        for rows that are not.
        """
        info = self._info(name)
        stop = info.rows if stop is None else stop
        if not 0 <= start <= stop <= info.rows:
            raise IndexError(f"rows {start}:{stop} of tensor {shown(name)}, which has {info.rows}")
        rows = np.empty((stop - start, *info.shape[1:]), DTYPES[info.dtype])
        self._fill(info, start, stop, rows)
        return rows

    def weight_rows(self, weight: Weight, start: int, stop: int) -> NDArray[Any]:
        """Rows [start, stop) of `weight` as stored, [stop - start, ...], across its parts.

        Raises CheckpointError where a part does not fit the weight, IndexError for rows beyond it.
        """
        if not 0 <= start <= stop <= weight.rows:
            raise IndexError(f"rows {start}:{stop} of {weight.name}, which has {weight.rows}")
        dtype = DTYPES[self.weight_dtype(weight)]
        if weight.zero_columns:
            padded = np.zeros((stop - start, weight.shape[1]), dtype)
            padded[:, : -weight.zero_columns] = self.weight_rows(_without_zeros(weight), start, stop)
            return padded
        rows = np.empty((stop - start, *weight.shape[1:]), dtype)
        at = 0
        for part in weight.parts:
            length = part.stop - part.start
            first, last = max(start, at), min(stop, at + length)
            if first < last:
                shift = part.start - at
                out = rows[first - start : last - start]
                self._fill(self._info(part.tensor), first + shift, last + shift, out)
            at += length
        return rows

    def weight_dtype(self, weight: Weight) -> DtypeName:
        """The one dtype of all parts of `weight`. Raises CheckpointError where they differ or do not fit."""
        dtypes = {self._checked_part(weight, part).dtype for part in weight.parts}
        total = sum(part.stop - part.start for part in weight.parts)
        if total != weight.rows:
            raise CheckpointError(
                f"weight {weight.name}: its tensors give {total} rows, the config wants {weight.rows}",
                hint=_MISMATCH,
            )
        if len(dtypes) != 1:
            names = ", ".join(sorted(part.tensor for part in weight.parts))
            raise CheckpointError(
                f"weight {weight.name}: tensors {names} mix dtypes {', '.join(sorted(dtypes))}",
                hint="re-save the checkpoint in one dtype",
            )
        return dtypes.pop()

    @property
    def rows_read(self) -> Mapping[str, int]:
        """Rows read so far of each tensor; a row read twice counts twice. A snapshot."""
        counts = self._log.counts()
        return MappingProxyType({name: counts.get(name, 0) for name in self.tensors})

    def unread(self) -> list[str]:
        """Tensors of which some row was never read, in file order."""
        return [name for name, info in self.tensors.items() if not self._log.covers(name, info.rows)]

    def close(self) -> None:
        """Close the files. Not while another thread reads."""
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _info(self, name: str) -> TensorInfo:
        try:
            return self.tensors[name]
        except KeyError:
            raise CheckpointError(
                f"tensor {shown(name)} is missing in {shown(self.directory)}", hint=_MISMATCH
            ) from None

    def _checked_part(self, weight: Weight, part: Rows) -> TensorInfo:
        info = self._info(part.tensor)
        # A convolution's kernel of a single point is a matrix, with axes of one at its end.
        own = _without_zeros(weight).shape
        fits = info.shape and _dropped_ones(info.shape[1:]) == _dropped_ones(own[1:])
        if not fits or not 0 <= part.start <= part.stop <= info.rows:
            raise CheckpointError(
                f"tensor {shown(part.tensor)} has shape {list(info.shape)}, but weight {weight.name} "
                f"{list(weight.shape)} takes its rows {part.start}:{part.stop}",
                hint=_MISMATCH,
            )
        return info

    def _fill(self, info: TensorInfo, start: int, stop: int, out: NDArray[Any]) -> None:
        if info.file not in self._descriptors:
            raise ValueError(f"{info.file.name} is read after the checkpoint was closed")
        if out.nbytes:
            row_bytes = info.nbytes // info.rows
            # As bytes, for ml_dtypes types have no buffer format.
            view = out.reshape(-1).view(np.uint8).data
            read_into(self._descriptors[info.file], view, info.offset + start * row_bytes, info.file)
        self._log.add(info.name, start, stop)


def _without_zeros(weight: Weight) -> Weight:
    """The part that stands in tensors."""
    if not weight.zero_columns:
        return weight
    shape = (weight.shape[0], weight.shape[1] - weight.zero_columns)
    return replace(weight, shape=shape, zero_columns=0)


def _dropped_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n for n in shape if n != 1)


def _add(tensors: dict[str, TensorInfo], tensor: TensorInfo) -> None:
    twin = tensors.setdefault(tensor.name, tensor)
    if twin is not tensor:
        raise CheckpointError(
            f"tensor {shown(tensor.name)} stands in both {twin.file.name} and {tensor.file.name}",
            hint=DAMAGED,
        )

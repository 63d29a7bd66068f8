"""One .gguf file, laid out first and then filled by positioned writes.

The header comes from the `gguf` package. Data goes where the layout says, so chunks may come in any order and
from any thread, nothing is buffered, and the same recipe gives the same bytes.
"""

from __future__ import annotations

import os
from pathlib import Path

import ml_dtypes
import numpy as np
from gguf import GGUFWriter
from numpy.typing import NDArray

from converters.decoder import Decoder, Weight
from converters.errors import UnsupportedError
from converters.gguf import metadata, special
from converters.gguf.layout import ALIGNMENT, TYPES, Place, Tensor, architecture, places, tensors
from converters.gguf.limits import check, context_limit
from converters.gguf.tokenizer import read_vocabulary
from converters.positioned import Coverage, allocate, write_at
from converters.writer import Encoded, Storages
from quant.blocks import Blocks, to_gguf

_DTYPES: dict[str, np.dtype[np.generic]] = {
    "f32": np.dtype("<f4"),
    "f16": np.dtype("<f2"),
    "bf16": np.dtype(ml_dtypes.bfloat16),
}
HEADER_ALLOWANCE = 1 << 20


def planned_bytes(decoder: Decoder, recipe: Storages, *, context_length: int | None = None) -> int:
    """Size of the file before it is written: exact tensor data, and about 50 bytes a token for the vocabulary.

    `context_length` does not matter here: a GGUF holds nothing that grows with it.
    """
    data = sum(_padded(tensor.nbytes) for tensor in tensors(decoder, recipe.storage))
    return data + 50 * decoder.vocab_size + HEADER_ALLOWANCE


def open_writer(
    decoder: Decoder,
    recipe: Storages,
    path: Path,
    *,
    context_length: int,
    checkpoint_directory: Path,
    model_name: str,
) -> GgufFile:
    """Create `path` with header, tokenizer and all its length; the weights follow through `write`.

    Raises UnsupportedError for what llama.cpp cannot do rightly (`check`, `context_limit`, the tokenizer),
    CheckpointError for a damaged tokenizer, FileExistsError, and OSError when the disk cannot hold the file.
    """
    check(decoder, recipe)
    limit, reason = context_limit(decoder)
    if not 0 < context_length <= limit:
        raise UnsupportedError(
            f"a context of {context_length} tokens: {reason or f'the model has {limit}'}",
            hint=f"ask for at most {limit}: --context {limit}",
        )
    layout = tensors(decoder, recipe.storage)
    out = GGUFWriter(None, architecture(decoder))
    vocabulary = read_vocabulary(checkpoint_directory, decoder.vocab_size)
    name = special.model_name(model_name, vocabulary)
    metadata.add_general(out, layout, name=name, checkpoint_directory=checkpoint_directory)
    metadata.add_shape(out, decoder, context_length=context_length)
    if vocabulary is None:
        out.add_tokenizer_model("none")
    else:
        special.add_tokenizer(out, vocabulary, decoder, checkpoint_directory)
    for t in layout:
        # The dtype is not looked at when the raw type is given.
        out.add_tensor_info(t.name, t.dims, np.dtype(np.float32), t.nbytes, raw_dtype=TYPES[t.storage])
    path.touch(exist_ok=False)
    out.write_header_to_file(path)
    out.write_kv_data_to_file()
    out.write_ti_data_to_file()
    out.close()
    return GgufFile(path, layout)


class GgufFile:
    """An `ArtifactWriter` over a file whose header is already there."""

    def __init__(self, path: Path, layout: list[Tensor]) -> None:
        self._places = places(layout)
        self._coverage = Coverage(weight for tensor in layout for weight in tensor.weights)
        self._offsets: dict[str, int] = {}
        end = _padded(path.stat().st_size)
        for tensor in layout:
            self._offsets[tensor.name] = end
            end += _padded(tensor.nbytes)
        self._fd = os.open(path, os.O_WRONLY)
        try:
            allocate(self._fd, end)
            for tensor in layout:
                if tensor.constants:
                    write_at(self._fd, np.asarray(tensor.constants, dtype="<f4"), self._offsets[tensor.name])
        except BaseException:
            self.abort()
            raise

    def holds(self, weight: Weight) -> bool:
        return weight.name in self._places

    def write(self, weight: Weight, start: int, rows: Encoded) -> None:
        """See `ArtifactWriter.write`. ValueError for rows of a wrong kind or width, or written before."""
        place = self._places[weight.name]
        data, width = _packed(rows, place.tensor)
        count = len(data)
        if width != place.tensor.shape[1:]:
            raise ValueError(f"{weight.name}: rows {start}..{start + count} of width {width} do not fit")
        self._coverage.claim(weight, start, count)
        write_at(self._fd, data, self._offset(place) + start * place.tensor.row_bytes)

    def close(self) -> None:
        """Close; ValueError that names a weight of which a row was never written."""
        self._coverage.check_complete()
        self.abort()

    def abort(self) -> None:
        """Close the descriptor; safe to call twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _offset(self, place: Place) -> int:
        return self._offsets[place.tensor.name] + place.row * place.tensor.row_bytes


def _packed(rows: Encoded, tensor: Tensor) -> tuple[NDArray[np.generic], tuple[int, ...]]:
    """Bytes as the file holds them, and the width in values."""
    if isinstance(rows, Blocks):
        if rows.format.name != tensor.storage:
            raise ValueError(f"{tensor.name} is {tensor.storage}, not {rows.format.name}")
        return to_gguf(rows), rows.codes.shape[1:]
    if tensor.storage not in _DTYPES or rows.dtype != _DTYPES[tensor.storage]:
        raise ValueError(f"{tensor.name} is {tensor.storage}, not {rows.dtype}")
    return rows, rows.shape[1:]


def _padded(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT

"""One ONNX variant being written: a folder that onnxruntime and onnxruntime-genai load."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from converters.decoder import Decoder, Weight
from converters.onnx.data_file import DataFile
from converters.onnx.decoder_graph import build
from converters.onnx.genai_config import CONFIG_FILE, GRAPH_FILE, genai_config
from converters.onnx.layout import Layout, plan
from converters.onnx.limits import check, check_context, context_limit
from converters.onnx.rotary import Tables, cache_chunks
from converters.onnx.tokenizer_files import read_tokenizer_files
from converters.positioned import Coverage
from converters.writer import Encoded, Storages


class Model(Protocol):
    """A decoder, with encoders or without."""

    def weights(self) -> Iterator[Weight]: ...


def open_writer(
    decoder: Decoder,
    recipe: Storages,
    directory: Path,
    *,
    context_length: int,
    checkpoint_directory: Path,
    model_name: str = "",
) -> OnnxWriter:
    """Begin a variant in `directory` (made if missing); `context_length` is the bundle's, in tokens.

    UnsupportedError for what `check` refuses and for a context beyond `context_limit`; CheckpointError when the
    tokenizer files are missing.
    """
    del model_name  # a folder names itself
    check(decoder, recipe)
    check_context(decoder, context_length, context_limit(decoder))
    small_files = read_tokenizer_files(checkpoint_directory, decoder.vocab_size)
    layout = plan(decoder, recipe, context_length)
    graph = build(decoder, layout, context_length).SerializeToString(deterministic=True)
    config = json.dumps(genai_config(decoder, context_length), indent=2) + "\n"
    small_files |= {GRAPH_FILE: graph, CONFIG_FILE: config.encode()}
    return begin(decoder, [layout], directory, small_files, cache_chunks(decoder.rope, context_length))


class OnnxWriter:
    """ArtifactWriter: every row goes to its place in the data file that holds its weight."""

    def __init__(
        self, model: Model, layouts: Sequence[Layout], directory: Path, small_files: dict[str, bytes]
    ) -> None:
        self._directory = directory
        self._small_files = small_files
        self._coverage = Coverage(model.weights())
        self._files: list[DataFile] = []
        try:
            for layout in layouts:
                self._files.append(DataFile(layout, directory))
        except BaseException:
            self.abort()
            raise

    def holds(self, weight: Weight) -> bool:
        return any(file.holds(weight) for file in self._files)

    def write(self, weight: Weight, start: int, rows: Encoded) -> None:
        """Store rows [start, start + n) of `weight`; ValueError when one of them was stored before."""
        file = next(file for file in self._files if file.holds(weight))
        packed = file.pack(weight, rows)
        self._coverage.claim(weight, start, len(packed[0]))
        file.write(weight, start, packed)

    def write_rotary_tables(self, tables: Tables) -> None:
        """Into the last data file, which is the one that has them."""
        self._files[-1].write_rotary_tables(tables)

    def write_rows(self, tensor: str, first: int, rows: NDArray[np.generic]) -> None:
        """Of a tensor that no weight decides, into the last data file."""
        self._files[-1].write_rows(tensor, first, rows)

    def close(self) -> None:
        """Write the small files; ValueError when a row was never written."""
        try:
            self._coverage.check_complete()
        finally:
            self.abort()
        for name, content in self._small_files.items():
            (self._directory / name).write_bytes(content)

    def abort(self) -> None:
        """Close the data files. Whoever made the directory removes it."""
        for file in self._files:
            file.close()


def begin(
    model: Model,
    layouts: Sequence[Layout],
    directory: Path,
    small_files: dict[str, bytes],
    tables: Tables,
    constants: Iterable[tuple[str, int, NDArray[np.generic]]] = (),
) -> OnnxWriter:
    """Make the directory, lay the data files out, and write what no weight decides: rotary tables, and rows of
    `constants` (tensor, first row, rows)."""
    directory.mkdir(parents=True, exist_ok=True)
    writer = OnnxWriter(model, layouts, directory, small_files)
    try:
        writer.write_rotary_tables(tables)
        for tensor, first, rows in constants:
            writer.write_rows(tensor, first, rows)
    except BaseException:
        writer.abort()
        raise
    return writer

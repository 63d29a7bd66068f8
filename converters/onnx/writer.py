"""One ONNX variant being written: a folder that onnxruntime and onnxruntime-genai load."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from converters.decoder import Decoder, Weight
from converters.errors import UnsupportedError
from converters.onnx.decoder_graph import build
from converters.onnx.genai_config import CONFIG_FILE, GRAPH_FILE, genai_config
from converters.onnx.layout import DATA_FILE, Layout, plan
from converters.onnx.limits import check, context_limit
from converters.onnx.rotary import COS, SIN, cache_chunks
from converters.onnx.tokenizer_files import read_tokenizer_files
from converters.positioned import Coverage, allocate, write_at
from converters.writer import Encoded, Storages


def open_writer(
    decoder: Decoder,
    recipe: Storages,
    directory: Path,
    *,
    context_length: int,
    checkpoint_directory: Path,
) -> OnnxWriter:
    """Begin a variant in `directory` (made if missing); `context_length` is the bundle's, in tokens.

    UnsupportedError for what `check` refuses and for a context beyond `context_limit`; CheckpointError when the
    tokenizer files are missing.
    """
    check(decoder, recipe)
    limit, why = context_limit(decoder)
    if not 0 < context_length <= limit:
        reason = f": {why}" if why else ""
        raise UnsupportedError(
            f"context length {context_length} is not in 1..{limit} of {decoder.architecture}{reason}",
            hint=f"try: --context {limit}",
        )
    small_files = read_tokenizer_files(checkpoint_directory, decoder.vocab_size)
    layout = plan(decoder, recipe, context_length)
    graph = build(decoder, layout, context_length).SerializeToString(deterministic=True)
    config = json.dumps(genai_config(decoder, context_length), indent=2) + "\n"
    small_files |= {GRAPH_FILE: graph, CONFIG_FILE: config.encode()}
    directory.mkdir(parents=True, exist_ok=True)
    writer = OnnxWriter(decoder, layout, directory, small_files)
    try:
        writer.write_rotary_tables(decoder, context_length)
    except BaseException:
        writer.abort()
        raise
    return writer


class OnnxWriter:
    """ArtifactWriter: every call is a positioned write into a file whose plan is fixed."""

    def __init__(
        self, decoder: Decoder, layout: Layout, directory: Path, small_files: dict[str, bytes]
    ) -> None:
        self._layout = layout
        self._directory = directory
        self._small_files = small_files
        self._stored = {weight.name: stored for stored in layout.stored for weight in stored.weights}
        self._coverage = Coverage(decoder.weights())
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        self._descriptor = os.open(directory / DATA_FILE, flags, 0o644)
        try:
            allocate(self._descriptor, layout.nbytes)
        except BaseException:
            self.abort()
            raise

    def write(self, weight: Weight, start: int, rows: Encoded) -> None:
        """Store rows [start, start + n) of `weight`; ValueError when one of them was stored before."""
        stored = self._stored[weight.name]
        arrays = stored.pack(rows)
        self._coverage.claim(weight, start, len(arrays[0]))
        first = stored.first_row(weight) + start
        for tensor, array in zip(stored.tensors, arrays, strict=True):
            self._write_rows(tensor.name, first, array)

    def write_rotary_tables(self, decoder: Decoder, context_length: int) -> None:
        for first, cos, sin in cache_chunks(decoder.rope, context_length):
            self._write_rows(COS, first, cos)
            self._write_rows(SIN, first, sin)

    def close(self) -> None:
        """Write the small files; ValueError when a row was never written."""
        try:
            self._coverage.check_complete()
        finally:
            self.abort()
        for name, content in self._small_files.items():
            (self._directory / name).write_bytes(content)

    def abort(self) -> None:
        """Close the data file. Whoever made the directory removes it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _write_rows(self, tensor: str, first: int, rows: NDArray[np.generic]) -> None:
        offset = self._layout.offsets[tensor] + first * self._layout.tensors[tensor].row_bytes
        write_at(self._descriptor, rows, offset)

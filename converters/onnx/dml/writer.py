"""One DirectML variant being written: a folder that onnxruntime-genai loads."""

from __future__ import annotations

import json
from pathlib import Path

from converters.decoder import Decoder
from converters.onnx.dml.config import dml_config
from converters.onnx.dml.decoder_graph import build
from converters.onnx.dml.kernels import check_kernels
from converters.onnx.dml.layout import plan, zero_point_rows
from converters.onnx.dml.limits import check, context_limit
from converters.onnx.genai_config import CONFIG_FILE, GRAPH_FILE
from converters.onnx.layout import Layout
from converters.onnx.limits import check_context
from converters.onnx.rotary import cache_chunks
from converters.onnx.tokenizer_files import read_tokenizer_files
from converters.onnx.writer import OnnxWriter, begin
from converters.writer import Storages


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

    UnsupportedError for what `check` refuses, for a context beyond `context_limit`, and for a node that DirectML has
    no kernel for; CheckpointError when the tokenizer files are missing.
    """
    del model_name  # a folder names itself
    check(decoder, recipe)
    check_context(decoder, context_length, context_limit(decoder), " on DirectML")
    small = read_tokenizer_files(checkpoint_directory, decoder.vocab_size)
    layout = plan(decoder, recipe, context_length)
    small |= small_files(decoder, layout, context_length)
    tables = cache_chunks(decoder.rope, context_length)
    return begin(decoder, [layout], directory, small, tables, zero_point_rows(layout))


def small_files(decoder: Decoder, layout: Layout, context_length: int) -> dict[str, bytes]:
    """Graph and config by file name. UnsupportedError when DirectML has no kernel for a node."""
    graph = build(decoder, layout)
    check_kernels(graph)
    config = json.dumps(dml_config(decoder, context_length), indent=2) + "\n"
    return {GRAPH_FILE: graph.SerializeToString(deterministic=True), CONFIG_FILE: config.encode()}

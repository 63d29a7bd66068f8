"""One NPU variant being written: a folder that onnxruntime-genai runs as a decoder pipeline."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from converters.decoder import Decoder
from converters.onnx.genai_config import CONFIG_FILE
from converters.onnx.limits import check_context
from converters.onnx.npu import stages
from converters.onnx.npu.config import npu_config
from converters.onnx.npu.layout import Files, plan
from converters.onnx.npu.limits import WINDOW, cache_length, check, context_limit
from converters.onnx.npu.qdq import RANGES_FILE, ranges_json, rounded_layers, unmeasured
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
    window: int = WINDOW,
) -> OnnxWriter:
    """Begin a variant in `directory` (made if missing) for `context_length` usable tokens.

    UnsupportedError for what `check` refuses and for a context beyond `context_limit`; CheckpointError when the
    tokenizer files are missing.
    """
    del model_name  # a folder names itself
    check(decoder, recipe)
    check_context(decoder, context_length, context_limit(decoder), " on an NPU")
    files = plan(decoder, recipe, cache_length(context_length, window))
    small = read_tokenizer_files(checkpoint_directory, decoder.vocab_size)
    small |= small_files(decoder, recipe, files, context_length, window)
    tables = cache_chunks(decoder.rope, cache_length(context_length, window))
    return begin(decoder, [files.head, files.layers], directory, small, tables)


def small_files(
    decoder: Decoder, recipe: Storages, files: Files, context_length: int, window: int = WINDOW
) -> dict[str, bytes]:
    """Graphs, config and, of 16-bit activations, their ranges, by file name."""
    cache = cache_length(context_length, window)
    layers, more = partial(stages.layers, decoder, files), {}
    if recipe.activations == "u16":
        # A plan knows no ranges yet; what it asks for, sizes, does not depend on them.
        ranges = recipe.ranges or unmeasured(decoder)
        layers = partial(rounded_layers, decoder, files.layers, ranges)
        more = {RANGES_FILE: ranges_json(ranges)}
    graphs = {
        "embeddings": stages.embeddings(decoder, files),
        "context": layers(window, cache),
        "iterator": layers(1, cache),
        "lm_head": stages.lm_head(decoder, files),
    }
    config = json.dumps(npu_config(decoder, cache, window), indent=2) + "\n"
    written = {f"{name}.onnx": graph.SerializeToString(deterministic=True) for name, graph in graphs.items()}
    return {**written, **more, CONFIG_FILE: config.encode()}

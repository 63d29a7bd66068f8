"""One multimodal variant being written: a folder with a decoder for each modality, encoders, and one base."""

from __future__ import annotations

import json
from pathlib import Path

from converters.multimodal import Multimodal
from converters.onnx.genai_config import CONFIG_FILE
from converters.onnx.limits import check, check_context, context_limit
from converters.onnx.multimodal.config import multimodal_config
from converters.onnx.multimodal.layout import Files, graphs, plan_files
from converters.onnx.rotary import cache_chunks
from converters.onnx.tokenizer_files import read_tokenizer_files
from converters.onnx.writer import OnnxWriter, begin
from converters.writer import Storages


def open_writer(
    model: Multimodal,
    recipe: Storages,
    directory: Path,
    *,
    context_length: int,
    checkpoint_directory: Path,
    model_name: str = "",
) -> OnnxWriter:
    """Begin a variant in `directory` (made if missing); errors as `converters.onnx.writer.open_writer`."""
    del model_name  # a folder names itself
    decoder = model.decoder
    check(decoder, recipe)
    check_context(decoder, context_length, context_limit(decoder))
    files = plan_files(model, recipe, context_length)
    small = read_tokenizer_files(checkpoint_directory, decoder.vocab_size)
    small |= small_files(model, files, context_length)
    return begin(model, files.layouts, directory, small, cache_chunks(decoder.rope, context_length))


def small_files(model: Multimodal, files: Files, context_length: int) -> dict[str, bytes]:
    """Graphs and configuration, by file name."""
    made = {
        name: graph.SerializeToString(deterministic=True)
        for name, graph in graphs(model, files, context_length).items()
    }
    config = json.dumps(multimodal_config(model, context_length), indent=2) + "\n"
    return {**made, CONFIG_FILE: config.encode()}

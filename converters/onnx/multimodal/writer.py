"""One multimodal variant being written: a folder with a decoder for each modality, encoders, and one base."""

from __future__ import annotations

import json
from pathlib import Path

from converters.checkpoint_files import read_json
from converters.errors import CheckpointError
from converters.multimodal import Multimodal
from converters.onnx.genai_config import CONFIG_FILE
from converters.onnx.limits import check, check_context, context_limit
from converters.onnx.multimodal.config import (
    MEDIA_FILE,
    SPEECH_PROCESSOR,
    VISION_PROCESSOR,
    media_config,
    multimodal_config,
)
from converters.onnx.multimodal.layout import Files, graphs, plan_files
from converters.onnx.processor_files import phi3v_vision, phi4mm_speech, phi4mm_vision
from converters.onnx.rotary import cache_chunks
from converters.onnx.tokenizer_files import read_tokenizer_files
from converters.onnx.writer import OnnxWriter, begin
from converters.strict_json import shown
from converters.writer import Storages

PREPROCESSOR = "preprocessor_config.json"
NUM_CROPS, MOST_CROPS = 16, 64
"""Of Phi-3-vision (4 in Phi-3.5-vision's advice for several images); more than any published model's."""


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
    small |= small_files(model, files, context_length, num_crops(checkpoint_directory))
    return begin(model, files.layouts, directory, small, cache_chunks(decoder.rope, context_length))


def num_crops(checkpoint_directory: Path) -> int:
    """Most crops of an image, from the checkpoint's preprocessor_config.json, where Phi-3-vision says it."""
    if not (checkpoint_directory / PREPROCESSOR).is_file():
        return NUM_CROPS
    found = read_json(checkpoint_directory.resolve(), PREPROCESSOR).get("num_crops", NUM_CROPS)
    if isinstance(found, bool) or not isinstance(found, int) or not 1 <= found <= MOST_CROPS:
        raise CheckpointError(
            f"{PREPROCESSOR}: num_crops must be 1 to {MOST_CROPS}, not {shown(found)}",
            hint="compare it with the one that the model was published with",
        )
    return found


def small_files(
    model: Multimodal, files: Files, context_length: int, most_crops: int = NUM_CROPS
) -> dict[str, bytes]:
    """Graphs and configuration, by file name."""
    made = {
        name: graph.SerializeToString(deterministic=True)
        for name, graph in graphs(model, files, context_length).items()
    }
    described = {
        CONFIG_FILE: multimodal_config(model, context_length),
        MEDIA_FILE: media_config(model, most_crops),
        VISION_PROCESSOR: phi4mm_vision() if model.speech else phi3v_vision(),
    }
    if model.speech:
        described[SPEECH_PROCESSOR] = phi4mm_speech()
    return made | {name: (json.dumps(data, indent=2) + "\n").encode() for name, data in described.items()}

"""The files that an artifact will consist of, before any is written."""

from __future__ import annotations

import json
from pathlib import Path

from converters.decoder import Decoder
from converters.onnx.decoder_graph import build
from converters.onnx.genai_config import CONFIG_FILE, GRAPH_FILE, genai_config
from converters.onnx.layout import DATA_FILE, plan
from converters.onnx.tokenizer_files import OPTIONAL, REQUIRED
from edge.planned import PlannedVariant


def artifact_files(variant: PlannedVariant, decoder: Decoder, checkpoint: Path) -> dict[str, int]:
    """Bytes by path in the bundle. Of the checkpoint only the sizes of its tokenizer files are looked at.

    Exact for an ONNX folder; a GGUF's vocabulary is estimated by its number of tokens.
    """
    if variant.format != "onnx":
        return {variant.relative_path: variant.disk_bytes}
    layout = plan(decoder, variant.recipe, variant.context_length)
    config = json.dumps(genai_config(decoder, variant.context_length), indent=2) + "\n"
    sizes = {
        DATA_FILE: layout.nbytes,
        GRAPH_FILE: build(decoder, layout, variant.context_length).ByteSize(),
        CONFIG_FILE: len(config.encode()),
    }
    for name in (*REQUIRED, *OPTIONAL):
        if (checkpoint / name).is_file():
            sizes[name] = (checkpoint / name).stat().st_size
    return {f"{variant.relative_path}/{name}": size for name, size in sizes.items()}

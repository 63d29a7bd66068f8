"""`genai_config.json` of a DirectML variant."""

from __future__ import annotations

from typing import Any

from converters.decoder import Decoder
from converters.onnx.genai_config import genai_config

PROVIDERS = [{"dml": {"enable_graph_capture": "1"}}]
POSITIONS = "position_ids"


def dml_config(decoder: Decoder, context_length: int) -> dict[str, Any]:
    """The whole file as data: the CPU variant's, with the provider and an input for the positions."""
    config = genai_config(decoder, context_length)
    graph = config["model"]["decoder"]
    graph["session_options"]["provider_options"] = PROVIDERS
    graph["inputs"][POSITIONS] = POSITIONS
    return config

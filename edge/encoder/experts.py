"""The exporter of an encoder in experts (MoEBERT): this project's own graph, for optimum knows no such model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from converters.bert_moebert import describe_bert
from converters.bert_reference import bert_logits
from converters.checkpoint import Checkpoint
from converters.onnx.bert_moebert import INPUTS, write_bert
from edge.manifest import tool_version
from quant.recipe import Recipe


def export(
    checkpoint: Path, folder: Path, probes: Mapping[str, NDArray[np.int64]]
) -> tuple[NDArray[np.float32], dict[str, str]]:
    """As `edge.encoder.optimum.export`; the answers are those of `converters.bert_reference`. Raises what
    `describe_bert` raises."""
    with Checkpoint.open(checkpoint) as opened:
        write_bert(opened, Recipe.preset("f32"), folder)
        inputs = (probes.get(name, np.zeros_like(probes["input_ids"])) for name in INPUTS)
        answers = bert_logits(opened, describe_bert(opened), *inputs)
    return answers, {"onnx": tool_version("onnx")}

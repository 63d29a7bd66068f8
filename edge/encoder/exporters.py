"""Who writes the ONNX graph of an encoder, by the config's model_type."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.bert_moebert import MODEL_TYPE
from converters.checkpoint_files import CONFIG
from converters.models import ENCODERS
from edge.encoder import experts, optimum

Probes = Mapping[str, NDArray[np.int64]]
"""Inputs of the graph by name, each [n, length]."""


@dataclass(frozen=True)
class Exported:
    """What the checkpoint itself answers to the probes, in float32: logits [n, classes] of a classifier, hidden
    states [n, length, hidden] of another; `tools` that decided the graph's bytes, by name, with their versions."""

    answers: NDArray[np.float32]
    tools: dict[str, str]


Exporter = Callable[[Path, Path, Probes], Exported]
"""(checkpoint, empty folder, probes): writes model.onnx into the folder."""


def _by_optimum(checkpoint: Path, folder: Path, probes: Probes) -> Exported:
    return Exported(*optimum.export(checkpoint, folder, probes))


def _in_experts(checkpoint: Path, folder: Path, probes: Probes) -> Exported:
    return Exported(*experts.export(checkpoint, folder, probes))


EXPORTERS: dict[str, Exporter] = {**dict.fromkeys(ENCODERS, _by_optimum), MODEL_TYPE: _in_experts}


def is_encoder(directory: Path) -> bool:
    """Whether a checkpoint directory holds one. What cannot be read is none: who reads it says what is wrong."""
    try:
        config: Any = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(config, dict) and config.get("model_type") in EXPORTERS

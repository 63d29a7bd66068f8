"""Altered copies of checkpoints, for tests that need one thing wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

ABSENT = object()
"""As a config value: the key is removed."""


def altered(
    source: Path,
    target: Path,
    config: dict[str, Any] | None = None,
    tensors: dict[str, torch.Tensor | None] | None = None,
) -> Path:
    """A copy of the single-file checkpoint `source` with config keys and tensors replaced (None: removed)."""
    shutil.copytree(source, target)
    if config is not None:
        path = target / "config.json"
        data = json.loads(path.read_text()) | config
        path.write_text(json.dumps({k: v for k, v in data.items() if v is not ABSENT}))
    if tensors is not None:
        path = target / "model.safetensors"
        kept = load_file(path) | tensors
        save_file({k: v for k, v in kept.items() if v is not None}, path)
    return target

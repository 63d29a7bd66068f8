"""An adapter as PEFT saves one (0.21, tuners/lora/config.py), so that PEFT and `edge convert --adapter` load it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from quant.adapters.linears import Pairs
from quant.tensor_file import write_tensors

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def write_adapter(directory: Path, pairs: Pairs, base: str) -> None:
    """Into the new folder `directory`. Each module's alpha is its rank, which makes every scale 1.

    `init_lora_weights` is true, "of no special start": it says how training began on the base named `base`, and that
    is the checkpoint beside it and no other.
    """
    directory.mkdir()
    ranks = {module: len(a) for module, (a, _) in pairs.items()}
    common = max(ranks.values())
    others = {module: rank for module, rank in ranks.items() if rank != common}
    config: dict[str, Any] = {
        "alpha_pattern": others,
        "base_model_name_or_path": base,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": common,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": common,
        "rank_pattern": others,
        "target_modules": sorted(ranks),
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    }
    (directory / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    tensors = {
        f"base_model.model.{module}.lora_{half}.weight": np.ascontiguousarray(values, np.float32)
        for module, (a, b) in pairs.items()
        for half, values in (("A", a), ("B", b))
    }
    shapes = {name: ("F32", values.shape) for name, values in tensors.items()}
    write_tensors(directory / WEIGHTS, shapes, lambda name: iter([tensors[name]]))

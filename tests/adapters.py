"""LoRA adapters made and merged by PEFT, for tests."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

EVERY = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")


def write_adapter(
    base: Path, directory: Path, targets: Sequence[str] = EVERY, *, seed: int = 0, r: int = 4, **config: Any
) -> Path:
    """An adapter of `base` with random halves, saved by PEFT; `config` goes to LoraConfig."""
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        adapted = get_peft_model(model, LoraConfig(r=r, target_modules=list(targets), **config))
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.05)
    adapted.save_pretrained(directory)
    return directory


def merged_logits(base: Path, adapter: Path | None, ids: Sequence[int]) -> NDArray[np.float32]:
    """What transformers says of `ids` with the adapter merged into the weights, float32 [len(ids), vocab]."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        if adapter is not None:
            model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    with torch.no_grad():
        logits: NDArray[np.float32] = model(torch.tensor([list(ids)])).logits[0].float().numpy()
    return logits

"""Heal: go on training an adapter that is there, with PEFT (LoftQ's second half, arXiv 2310.08659, section 3.3)."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from peft import PeftModel

from quant.adapters.linears import Linear, Pairs
from quant.adapters.training import Training, train


def heal(
    model: Any,
    teacher: Any,
    adapter: Path,
    linears: list[Linear],
    windows: NDArray[np.int64],
    training: Training,
    advance: Callable[[int], None] | None = None,
) -> tuple[Pairs, list[float]]:
    """The pairs of the adapter in the folder `adapter` after training beside `model`, and the losses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted: Any = PeftModel.from_pretrained(model, str(adapter), is_trainable=True)
    losses = train(adapted, teacher, windows, training, advance=advance)
    pairs: Pairs = {}
    for linear in linears:
        layer = adapted.base_model.model.get_submodule(linear.module)
        if hasattr(layer, "lora_A"):
            halves = (layer.lora_A["default"].weight, layer.lora_B["default"].weight)
            a, b = (half.detach().numpy().copy() for half in halves)
            pairs[linear.module] = a, b * np.float32(layer.scaling["default"])
    return pairs, losses

"""What the tests of MoEBERT share: a tiny model of either kind, and a batch for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from quant.distill.models import Batch, load_model
from tests.encoder_checkpoint import write_encoder

Tiny = Callable[..., Path]
KINDS = ["decoder", "encoder"]


def wide_model(kind: Any, tiny: Tiny, directory: Path) -> Any:
    """In float64, so that two ways to one number differ by rounding alone."""
    source = tiny("phi4-mini") if kind == "decoder" else write_encoder(directory / "bert", layers=2)
    return load_model(source, kind).double().eval()


def batch_of(kind: str, size: int = 3, length: int = 9, seed: int = 0) -> Batch:
    """Ids below 12, of which an encoder's batch has padding."""
    random = np.random.default_rng(seed)
    ids = torch.from_numpy(random.integers(1, 12, (size, length)))
    mask = torch.ones(size, length, dtype=torch.bool)
    if kind == "decoder":
        return Batch(ids, mask, None)
    for i in range(size):
        mask[i, length - i :] = False
    return Batch(ids, mask, torch.from_numpy(random.integers(0, 2, size)))

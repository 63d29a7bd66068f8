"""Weights with a value that is not a number are found before anything is computed with them."""

from __future__ import annotations

import numpy as np

from converters.decoder import Weight
from converters.errors import CheckpointError
from converters.forward import Floats


def check_weight(weight: Weight, values: Floats, start: int = 0) -> None:
    """CheckpointError that names the weight, its tensor and the place of the first nan or infinity.

    values: rows [start, start + n) of `weight`.
    """
    # A sum of squares is finite only if every term is; only then is no mask needed.
    if np.isfinite(np.vdot(values, values)):
        return
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        row, *column = bad[0].tolist()
        place = f"row {start + row}" + "".join(f" column {i}" for i in column)
        tensors = ", ".join(sorted({part.tensor for part in weight.parts}))
        raise CheckpointError(
            f"{weight.name} {place} is {values[tuple(bad[0])]} (tensor {tensors})",
            hint="the checkpoint is damaged: fetch or export it again",
        )

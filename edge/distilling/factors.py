"""A student whose linear layers are in factors (LoSparse): it goes on learning, and is no teacher."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from converters.checkpoint import Checkpoint
from converters.errors import UnsupportedError
from converters.models import describe
from quant.lowrank.names import MODEL_TYPE


def in_factors(config: Mapping[str, Any]) -> bool:
    """Whether a config is that of `edge prune --method losparse`."""
    return config.get("model_type") == MODEL_TYPE


def check_factors(student: Path, *, transfer: bool) -> None:
    """Raises what `converters.models.describe` does of factors that do not fit together, and UnsupportedError where
    pieces of matrices should be moved into them."""
    if transfer:
        raise UnsupportedError(
            "--transfer moves pieces of matrices, and the student's are in factors",
            hint="leave out --transfer: such a student is trained whole",
        )
    with Checkpoint.open(student) as checkpoint:
        describe(checkpoint)

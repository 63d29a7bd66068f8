"""How far an encoder's features are from those of the reference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from converters.forward import Floats


@dataclass(frozen=True)
class FeatureError:
    """`relative`: norm of the difference by that of the expected features, over all of them. `worst_cosine`: of the
    feature whose direction is furthest from the expected one."""

    relative: float
    worst_cosine: float


def feature_error(found: Floats, expected: Floats) -> FeatureError:
    """Both [features, hidden]. ValueError when they are of different shapes."""
    if found.shape != expected.shape:
        raise ValueError(f"features {found.shape} where {expected.shape} are expected")
    ours, theirs = found.astype(np.float64), expected.astype(np.float64)
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    cosines = (ours * theirs).sum(axis=1) / np.maximum(norms, np.finfo(np.float64).tiny)
    difference = np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
    return FeatureError(float(difference), float(cosines.min()))

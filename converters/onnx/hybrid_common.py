"""What the token mixers of a hybrid decoder's graph share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from converters.decoder import Attention, Weight

Linear = Callable[[Weight, str, Weight | None], str]
"""(weight, x, bias) -> the name of the product."""
Vector = Callable[[Weight], str]


@dataclass
class Common:
    """What the mixers share: how weights are multiplied by and named, lengths, and what one layer leaves to others.

    memory: y of the last Mamba layer. keys, values: the new ones of the last layer that made some, and `owner`
    its index.
    """

    linear: Linear
    vector: Vector
    attention: Attention
    lengths: str
    total: str
    context_length: int
    memory: str = ""
    keys: str = ""
    values: str = ""
    owner: int = 0

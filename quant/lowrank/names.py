"""What `converters.models.phi3_losparse` reads: names, and the rank that fits it. Free of torch."""

from __future__ import annotations

import math

from quant.prune.settings import BLOCK

MODEL_TYPE, ARCHITECTURE = "phi3_losparse", "Phi3LoSparseForCausalLM"
LINEAR = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
"""The linear layers of a Phi-3 layer. The paper has q, k and v each by itself; here they are one matrix and share one
`a`, as gate and up do."""


def rank_of(out: int, columns: int, share: float) -> int:
    """The rank whose factors have `share` of the matrix's values, rounded up; to a multiple of BLOCK where there is
    one, for the second factor's rows are quantized in blocks."""
    rank = math.ceil(share * out * columns / (out + columns))
    most = min(out, columns)
    return min(most, -(-rank // BLOCK) * BLOCK) if most >= BLOCK else min(most, rank)

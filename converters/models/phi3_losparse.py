"""Phi-3 with linear layers in factors, as `edge prune --method losparse` writes it.

The config is that of a Phi-3 model under a `model_type` of its own: whoever loaded it as `phi3` would miss the layers
and make random ones. In place of `X.weight` a layer X = qkv_proj, o_proj, gate_up_proj or down_proj may have
`X.low_rank_a` [rank, in], `X.low_rank_b` [out, rank], `X.sparse` [kept + 1, in] and `X.sparse_rows` float32 [out],
whole numbers (`converters.decoder.Factored`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from converters.checkpoint import Checkpoint
from converters.decoder import Decoder, Factored, Rows, Weight
from converters.errors import CheckpointError
from converters.model_parts import expect_architecture
from converters.models.phi3 import read_decoder
from converters.strict_config import StrictConfig
from converters.tensor_map import TensorMap

MODEL_TYPE, ARCHITECTURE = "phi3_losparse", "Phi3LoSparseForCausalLM"


def describe(checkpoint: Checkpoint) -> Decoder:
    """The Decoder of a factored Phi-3 checkpoint; errors as `converters.models.describe`."""
    expect_architecture(checkpoint, ARCHITECTURE)
    config, tensors = StrictConfig(checkpoint.config), TensorMap(checkpoint)

    def stacked(source: str, columns: int, rows: dict[str, int]) -> Sequence[Weight]:
        if tensors.has(f"{source}.low_rank_a"):
            return _factored(checkpoint, tensors, source, columns, rows)
        return tensors.stacked(f"{source}.weight", columns, rows)

    decoder = read_decoder(checkpoint, config, tensors, names=(MODEL_TYPE, ARCHITECTURE), stacked=stacked)
    config.finish()
    tensors.finish()
    return decoder


def _factored(
    checkpoint: Checkpoint, tensors: TensorMap, source: str, columns: int, rows: dict[str, int]
) -> list[Weight]:
    """As `TensorMap.stacked`, of the layer `source`."""
    out = sum(rows.values())
    rank = tensors.shape(f"{source}.low_rank_a", 2)[0]
    kept = tensors.shape(f"{source}.sparse", 2)[0]
    tensors.check(f"{source}.low_rank_b", out, rank)
    tensors.check(f"{source}.sparse_rows", out)
    table = checkpoint.read(f"{source}.sparse_rows").astype(np.float64)
    if not np.isin(table, np.arange(kept)).all():
        raise CheckpointError(
            f"tensor {source}.sparse_rows: not every value is the number of a row of `sparse`",
            hint="prune the model again: edge prune --method losparse",
        )
    shared = f"{next(iter(rows)).rpartition('.')[0]}.{source.rpartition('.')[2].removesuffix('_proj')}"
    a = tensors.whole(f"{shared}.a", f"{source}.low_rank_a", rank, columns)
    sparse = tensors.whole(f"{shared}.sparse", f"{source}.sparse", kept, columns)
    weights, start = [], 0
    for name, count in rows.items():
        stop = start + count
        b = Weight(f"{name}.b", (count, rank), (Rows(f"{source}.low_rank_b", start, stop),))
        factors = Factored(a, sparse, b, tuple(map(int, table[start:stop])))
        weights.append(Weight(name, (count, columns), (), factors=factors))
        start = stop
    return weights

"""Phi-3 with MLPs in factors, as `edge prune --method losparse` writes it.

The config is that of a Phi-3 model under a `model_type` of its own: whoever loaded it as `phi3` would miss the MLPs
and make random ones. In place of `X.weight` a layer X = gate_up_proj or down_proj has `X.low_rank_a` [rank, in],
`X.low_rank_b` [out, rank], `X.sparse` [kept + 1, in] and `X.sparse_rows` float32 [out], whole numbers
(`converters.decoder.Factored`).
"""

from __future__ import annotations

import numpy as np

from converters.checkpoint import Checkpoint
from converters.decoder import Decoder, Factored, FactoredMlp
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

    def mlp(index: int, hidden_size: int, inner: int) -> FactoredMlp:
        source, name = f"model.layers.{index}.mlp", f"layers.{index}.mlp"
        return FactoredMlp(
            _factored(
                checkpoint, tensors, f"{source}.gate_up_proj", f"{name}.gate_up", 2 * inner, hidden_size
            ),
            _factored(checkpoint, tensors, f"{source}.down_proj", f"{name}.down", hidden_size, inner),
        )

    decoder = read_decoder(checkpoint, config, tensors, names=(MODEL_TYPE, ARCHITECTURE), mlp=mlp)
    config.finish()
    tensors.finish()
    return decoder


def _factored(
    checkpoint: Checkpoint, tensors: TensorMap, source: str, name: str, out: int, columns: int
) -> Factored:
    rank = tensors.shape(f"{source}.low_rank_a", 2)[0]
    kept = tensors.shape(f"{source}.sparse", 2)[0]
    tensors.check(f"{source}.sparse_rows", out)
    rows = checkpoint.read(f"{source}.sparse_rows").astype(np.float64)
    if not np.isin(rows, np.arange(kept)).all():
        raise CheckpointError(
            f"tensor {source}.sparse_rows: not every value is the number of a row of `sparse`",
            hint="prune the model again: edge prune --method losparse",
        )
    return Factored(
        a=tensors.whole(f"{name}.a", f"{source}.low_rank_a", rank, columns),
        b=tensors.whole(f"{name}.b", f"{source}.low_rank_b", out, rank),
        sparse=tensors.whole(f"{name}.sparse", f"{source}.sparse", kept, columns),
        rows=tuple(map(int, rows)),
    )

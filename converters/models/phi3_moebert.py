"""Phi-3 with MLPs split into experts, as `edge distill --method moebert` writes it.

The config is that of a Phi-3 model under a `model_type` of its own, for whoever loaded it as `phi3` would make random
MLPs: `num_local_experts` N, and `intermediate_size` that of one expert. In place of its two matrices an MLP has
`table` float32 [vocabulary], the number of each token's expert, and for e < N `experts.e.gate_up_proj.weight`
[2 * intermediate, hidden] and `experts.e.down_proj.weight` [hidden, intermediate].
"""

from __future__ import annotations

import numpy as np

from converters.checkpoint import Checkpoint
from converters.decoder import Decoder, GatedMlp, RoutedMlp
from converters.errors import CheckpointError
from converters.model_parts import expect_architecture
from converters.models.phi3 import read_decoder
from converters.strict_config import StrictConfig
from converters.tensor_map import TensorMap

MODEL_TYPE, ARCHITECTURE = "phi3_moebert", "Phi3MoEBERTForCausalLM"


def describe(checkpoint: Checkpoint) -> Decoder:
    """The Decoder of a MoEBERT-split Phi-3 checkpoint; errors as `converters.models.describe`."""
    expect_architecture(checkpoint, ARCHITECTURE)
    config, tensors = StrictConfig(checkpoint.config), TensorMap(checkpoint)
    experts, vocabulary = config.integer("num_local_experts"), config.integer("vocab_size")
    config.take("shared_neurons")  # how many begin every expert: where they come from, not what they compute

    def mlp(index: int, hidden_size: int, inner: int) -> RoutedMlp:
        source, name = f"model.layers.{index}.mlp", f"layers.{index}.moe"
        table = tensors.whole(f"{name}.table", f"{source}.table", vocabulary)
        check_table(checkpoint, f"{source}.table", experts)
        return RoutedMlp(table, tuple(expert(f"{source}.experts.{e}", f"{name}.{e}") for e in range(experts)))

    def expert(source: str, name: str) -> GatedMlp:
        hidden_size, inner = config.integer("hidden_size"), config.integer("intermediate_size")
        halves = {f"{name}.gate": inner, f"{name}.up": inner}
        gate, up = tensors.stacked(f"{source}.gate_up_proj.weight", hidden_size, halves)
        down = tensors.whole(f"{name}.down", f"{source}.down_proj.weight", hidden_size, inner)
        return GatedMlp(gate, up, down)

    decoder = read_decoder(checkpoint, config, tensors, names=(MODEL_TYPE, ARCHITECTURE), mlp=mlp)
    config.finish()
    tensors.finish()
    return decoder


def check_table(checkpoint: Checkpoint, tensor: str, experts: int) -> None:
    """CheckpointError where a value of the routing table is not the number of an expert."""
    values = checkpoint.read(tensor).astype(np.float64)
    if not np.isin(values, np.arange(experts)).all():
        raise CheckpointError(
            f"tensor {tensor}: not every value is the number of one of {experts} experts",
            hint="make the model again: edge distill --method moebert",
        )

"""What the architectures of the Phi family read alike from a config and its tensors."""

from __future__ import annotations

import numpy as np

from converters.checkpoint import Checkpoint
from converters.checkpoint_files import read_json
from converters.decoder import Attention, Weight
from converters.errors import CheckpointError, UnsupportedError
from converters.strict_config import StrictConfig
from converters.strict_json import shown
from converters.tensor_map import TensorMap

EMBEDDING = "model.embed_tokens.weight"
LM_HEAD = "lm_head.weight"
_COMPARE_BYTES = 1 << 22


def expect_architecture(checkpoint: Checkpoint, model_type: str, *known: str) -> None:
    """UnsupportedError unless config.json names one of `known`, or none."""
    found = checkpoint.config.get("architectures")
    if found is not None and found not in [[name] for name in known]:
        raise UnsupportedError(
            f"config.json: architectures = {shown(found)} with model_type {model_type} (only {' or '.join(known)})",
            hint="convert the causal language model that this one was made from",
        )


def read_attention(config: StrictConfig, hidden_size: int, context_length: int) -> Attention:
    """Heads, their size and the window. Raises CheckpointError where they do not fit together."""
    heads = config.integer("num_attention_heads")
    kv_heads = config.integer("num_key_value_heads", heads)
    if heads % kv_heads:
        raise CheckpointError(
            f"config.json: num_attention_heads = {heads} is no multiple of num_key_value_heads = {kv_heads}",
            hint="compare config.json with the one that the model was published with",
        )
    head_dim = config.integer("head_dim", hidden_size // heads or None)
    window = config.integer("sliding_window", context_length)
    return Attention(
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        scale=head_dim**-0.5,
        window=window if window < context_length else None,
    )


def read_lm_head(checkpoint: Checkpoint, tensors: TensorMap, embedding: Weight, *, tie: bool) -> Weight:
    """The embedding when tied, unless the checkpoint carries an lm_head that differs from it.

    The config then contradicts the weights. transformers 5 goes by the weights (PreTrainedModel.tie_weights),
    and so does this: a head that somebody trained and saved is not thrown away.
    """
    if tie and (LM_HEAD not in checkpoint.tensors or _same(checkpoint, embedding)):
        if LM_HEAD in checkpoint.tensors:
            tensors.check(LM_HEAD, *embedding.shape)
        return embedding
    return tensors.whole("lm_head", LM_HEAD, *embedding.shape)


def _same(checkpoint: Checkpoint, embedding: Weight) -> bool:
    first, second = checkpoint.tensors[EMBEDDING], checkpoint.tensors[LM_HEAD]
    if (first.dtype, first.shape) != (second.dtype, second.shape):
        return False
    step = max(1, _COMPARE_BYTES * embedding.rows // max(first.nbytes, 1))
    return all(
        np.array_equal(
            checkpoint.read(EMBEDDING, i, min(i + step, embedding.rows)),
            checkpoint.read(LM_HEAD, i, min(i + step, embedding.rows)),
        )
        for i in range(0, embedding.rows, step)
    )


def read_eos_token_ids(checkpoint: Checkpoint, config: StrictConfig, vocab_size: int) -> tuple[int, ...]:
    """Of config.json, then of generation_config.json: chat models name their end of turn only there."""
    ids = config.token_ids("eos_token_id", vocab_size)
    if (checkpoint.directory / "generation_config.json").exists():
        generation = read_json(checkpoint.directory, "generation_config.json")
        ids += StrictConfig(generation).token_ids("eos_token_id", vocab_size)
    return tuple(dict.fromkeys(ids))

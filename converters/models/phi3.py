"""Every `Phi3ForCausalLM`: Phi-3-mini, -medium, Phi-3.5-mini, Phi-4, Phi-4-mini, and pruned shapes of them.

What the keys mean is what transformers' Phi3 classes compute with them (models/phi3, modeling_rope_utils).
"""

from __future__ import annotations

import numpy as np

from converters.checkpoint import Checkpoint
from converters.checkpoint_files import read_json
from converters.decoder import Attention, Decoder, GatedMlp, Layer, Weight
from converters.errors import CheckpointError, UnsupportedError
from converters.rope_config import read_rope
from converters.strict_config import StrictConfig
from converters.strict_json import shown
from converters.tensor_map import TensorMap

ARCHITECTURE = "Phi3ForCausalLM"
_EMBEDDING = "model.embed_tokens.weight"
_LM_HEAD = "lm_head.weight"
_COMPARE_BYTES = 1 << 22


def describe(checkpoint: Checkpoint) -> Decoder:
    """The Decoder of a Phi-3 architecture checkpoint; errors as `converters.models.describe`."""
    config, tensors = StrictConfig(checkpoint.config), TensorMap(checkpoint)
    decoder = read_decoder(checkpoint, config, tensors, ARCHITECTURE)
    config.finish()
    tensors.finish()
    return decoder


def read_decoder(
    checkpoint: Checkpoint, config: StrictConfig, tensors: TensorMap, architecture: str, *, linear: str = ""
) -> Decoder:
    """The part of `config` and `tensors` that a Phi-3 decoder is, in an `architecture` that may have more.

    `linear`: what stands between the name of a linear layer and its `.weight`.
    """
    _refuse_other_maths(config, checkpoint, architecture)
    vocab_size = config.integer("vocab_size")
    hidden_size = config.integer("hidden_size")
    context_length = config.integer("max_position_embeddings")
    attention = _attention(config, hidden_size, context_length)
    tie = config.flag("tie_word_embeddings", False)
    embedding = tensors.whole("embedding", _EMBEDDING, vocab_size, hidden_size)
    inner = config.integer("intermediate_size")
    count = config.integer("num_hidden_layers")
    return Decoder(
        model_type="phi3",
        architecture=ARCHITECTURE,
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=inner,
        context_length=context_length,
        norm_eps=config.number("rms_norm_eps", 1e-5),
        rope=read_rope(config, attention.head_dim, context_length),
        attention=attention,
        embedding=embedding,
        layers=tuple(_layer(tensors, i, hidden_size, inner, attention, linear) for i in range(count)),
        final_norm=tensors.whole("final_norm", "model.norm.weight", hidden_size),
        lm_head=_lm_head(checkpoint, tensors, embedding, tie=tie),
        bos_token_id=config.token_id("bos_token_id", vocab_size),
        eos_token_ids=_eos_token_ids(checkpoint, config, vocab_size),
        pad_token_id=config.token_id("pad_token_id", vocab_size),
    )


def _refuse_other_maths(config: StrictConfig, checkpoint: Checkpoint, architecture: str) -> None:
    architectures, model_type = (checkpoint.config.get(key) for key in ("architectures", "model_type"))
    if architectures is not None and architectures != [architecture]:
        raise UnsupportedError(
            f"config.json: architectures = {shown(architectures)} with model_type {model_type} (only {architecture})",
            hint="convert the causal language model that this one was made from",
        )
    config.expect("hidden_act", "silu")
    for key in ("attention_bias", "mlp_bias", "lm_head_bias", "is_encoder_decoder", "add_cross_attention"):
        config.expect(key, False)
    # 1: every layer attends alike and positions are not interpolated; what others mean is not published.
    for key in ("full_attn_mod", "interpolate_factor"):
        config.expect(key, 1)


def _attention(config: StrictConfig, hidden_size: int, context_length: int) -> Attention:
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


def _layer(
    tensors: TensorMap, index: int, hidden_size: int, inner: int, attention: Attention, linear: str
) -> Layer:
    source, name = f"model.layers.{index}", f"layers.{index}"
    width, kv_width = attention.heads * attention.head_dim, attention.kv_heads * attention.head_dim
    q, k, v = tensors.stacked(
        f"{source}.self_attn.qkv_proj{linear}.weight",
        hidden_size,
        {f"{name}.attention.q": width, f"{name}.attention.k": kv_width, f"{name}.attention.v": kv_width},
    )
    gate, up = tensors.stacked(
        f"{source}.mlp.gate_up_proj{linear}.weight",
        hidden_size,
        {f"{name}.mlp.gate": inner, f"{name}.mlp.up": inner},
    )
    return Layer(
        input_norm=tensors.whole(f"{name}.input_norm", f"{source}.input_layernorm.weight", hidden_size),
        q=q,
        k=k,
        v=v,
        o=tensors.whole(
            f"{name}.attention.o", f"{source}.self_attn.o_proj{linear}.weight", hidden_size, width
        ),
        post_attention_norm=tensors.whole(
            f"{name}.post_attention_norm", f"{source}.post_attention_layernorm.weight", hidden_size
        ),
        mlp=GatedMlp(
            gate=gate,
            up=up,
            down=tensors.whole(
                f"{name}.mlp.down", f"{source}.mlp.down_proj{linear}.weight", hidden_size, inner
            ),
        ),
    )


def _lm_head(checkpoint: Checkpoint, tensors: TensorMap, embedding: Weight, *, tie: bool) -> Weight:
    """The embedding when tied, unless the checkpoint carries an lm_head that differs from it.

    The config then contradicts the weights. transformers 5 goes by the weights (PreTrainedModel.tie_weights),
    and so does this: a head that somebody trained and saved is not thrown away.
    """
    if tie and (_LM_HEAD not in checkpoint.tensors or _same(checkpoint, embedding)):
        if _LM_HEAD in checkpoint.tensors:
            tensors.check(_LM_HEAD, *embedding.shape)
        return embedding
    return tensors.whole("lm_head", _LM_HEAD, *embedding.shape)


def _same(checkpoint: Checkpoint, embedding: Weight) -> bool:
    first, second = checkpoint.tensors[_EMBEDDING], checkpoint.tensors[_LM_HEAD]
    if (first.dtype, first.shape) != (second.dtype, second.shape):
        return False
    step = max(1, _COMPARE_BYTES * embedding.rows // max(first.nbytes, 1))
    return all(
        np.array_equal(
            checkpoint.read(_EMBEDDING, i, min(i + step, embedding.rows)),
            checkpoint.read(_LM_HEAD, i, min(i + step, embedding.rows)),
        )
        for i in range(0, embedding.rows, step)
    )


def _eos_token_ids(checkpoint: Checkpoint, config: StrictConfig, vocab_size: int) -> tuple[int, ...]:
    """Of config.json, then of generation_config.json: chat models name their end of turn only there."""
    ids = config.token_ids("eos_token_id", vocab_size)
    if (checkpoint.directory / "generation_config.json").exists():
        generation = read_json(checkpoint.directory, "generation_config.json")
        ids += StrictConfig(generation).token_ids("eos_token_id", vocab_size)
    return tuple(dict.fromkeys(ids))

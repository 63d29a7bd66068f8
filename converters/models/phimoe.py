"""Phi-3.5-MoE and Phi-tiny/-mini-MoE (`PhiMoEForCausalLM`): experts, LayerNorm and biases.

What the keys mean is what transformers' Phimoe classes compute with them (models/phimoe), but for the LongRoPE
factors: transformers 5.23 takes the short ones at every length, the model's own code (modeling_phimoe.py on the
hub) the long ones beyond the original context, as the model was trained.
"""

from __future__ import annotations

from converters.checkpoint import Checkpoint
from converters.decoder import Attention, Decoder, Experts, GatedMlp, Layer, Weight
from converters.errors import CheckpointError
from converters.model_parts import (
    EMBEDDING,
    expect_architecture,
    read_attention,
    read_eos_token_ids,
    read_lm_head,
)
from converters.rope_config import read_rope
from converters.strict_config import StrictConfig
from converters.tensor_map import TensorMap

ARCHITECTURE = "PhiMoEForCausalLM"
_TRAINING = ("hidden_dropout", "input_jitter_noise", "output_router_logits", "router_aux_loss_coef")
"""Keys that say nothing about inference."""


def describe(checkpoint: Checkpoint) -> Decoder:
    """The Decoder of a Phi-3.5-MoE checkpoint; errors as `converters.models.describe`."""
    # transformers 5 writes the class name with other capitals than the hub has it.
    expect_architecture(checkpoint, ARCHITECTURE, "PhimoeForCausalLM")
    config = StrictConfig(checkpoint.config)
    config.expect("hidden_act", "silu")
    config.expect("num_experts_per_tok", 2)
    for key in _TRAINING:
        config.take(key)
    vocab_size, hidden_size = config.integer("vocab_size"), config.integer("hidden_size")
    context_length = config.integer("max_position_embeddings")
    attention = read_attention(config, hidden_size, context_length)
    tie = config.flag("tie_word_embeddings", False)
    inner, experts = config.integer("intermediate_size"), config.integer("num_local_experts", 16)
    if experts < 2:
        raise CheckpointError(
            f"config.json: num_local_experts = {experts}, and two experts are chosen for every token",
            hint="compare config.json with the one that the model was published with",
        )
    tensors = TensorMap(checkpoint)
    embedding = tensors.whole("embedding", EMBEDDING, vocab_size, hidden_size)
    lm_head = read_lm_head(checkpoint, tensors, embedding, tie=tie)
    names = _Layers(
        tensors, hidden_size, inner, attention, experts,
        bias=config.flag("attention_bias", False),
        # Twice the noise of training is what counts as a tie (`sparsemixer`).
        tolerance=2 * config.number("router_jitter_noise", 0.01),
    )  # fmt: skip
    decoder = Decoder(
        model_type="phimoe",
        architecture=ARCHITECTURE,
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=inner,
        context_length=context_length,
        norm_eps=config.number("rms_norm_eps", 1e-5),
        rope=read_rope(config, attention.head_dim, context_length, theta=1e6, mscales=True),
        attention=attention,
        embedding=embedding,
        layers=tuple(names.layer(i) for i in range(config.integer("num_hidden_layers"))),
        final_norm=tensors.whole("final_norm", "model.norm.weight", hidden_size),
        lm_head=lm_head,
        bos_token_id=config.token_id("bos_token_id", vocab_size),
        eos_token_ids=read_eos_token_ids(checkpoint, config, vocab_size),
        pad_token_id=config.token_id("pad_token_id", vocab_size),
        norm="layer",
        final_norm_bias=tensors.whole("final_norm.bias", "model.norm.bias", hidden_size),
        lm_head_bias=(
            tensors.whole("lm_head.bias", "lm_head.bias", vocab_size)
            if config.flag("lm_head_bias", False)
            else None
        ),
    )
    config.finish()
    tensors.finish()
    return decoder


class _Layers:
    """Names and shapes of a layer's tensors."""

    def __init__(
        self,
        tensors: TensorMap,
        hidden: int,
        inner: int,
        attention: Attention,
        experts: int,
        *,
        bias: bool,
        tolerance: float,
    ) -> None:
        self._tensors, self._hidden, self._inner, self._experts = tensors, hidden, inner, experts
        self._width = attention.heads * attention.head_dim
        self._kv_width = attention.kv_heads * attention.head_dim
        self._bias, self._tolerance = bias, tolerance

    def layer(self, index: int) -> Layer:
        source, name = f"model.layers.{index}", f"layers.{index}"
        hidden, width, kv_width = self._hidden, self._width, self._kv_width
        q, q_bias = self._linear(name, source, "q", width, hidden)
        k, k_bias = self._linear(name, source, "k", kv_width, hidden)
        v, v_bias = self._linear(name, source, "v", kv_width, hidden)
        o, o_bias = self._linear(name, source, "o", hidden, width)
        whole = self._tensors.whole
        before, after = f"{name}.input_norm", f"{name}.post_attention_norm"
        return Layer(
            input_norm=whole(before, f"{source}.input_layernorm.weight", hidden),
            q=q,
            k=k,
            v=v,
            o=o,
            post_attention_norm=whole(after, f"{source}.post_attention_layernorm.weight", hidden),
            mlp=self._mixture(f"{name}.moe", f"{source}.block_sparse_moe"),
            input_norm_bias=whole(f"{before}.bias", f"{source}.input_layernorm.bias", hidden),
            q_bias=q_bias,
            k_bias=k_bias,
            v_bias=v_bias,
            o_bias=o_bias,
            post_attention_norm_bias=whole(
                f"{after}.bias", f"{source}.post_attention_layernorm.bias", hidden
            ),
        )

    def _linear(
        self, layer: str, source: str, short: str, rows: int, columns: int
    ) -> tuple[Weight, Weight | None]:
        name, tensor = f"{layer}.attention.{short}", f"{source}.self_attn.{short}_proj"
        weight = self._tensors.whole(name, f"{tensor}.weight", rows, columns)
        if not self._bias:
            return weight, None
        return weight, self._tensors.whole(f"{name}.bias", f"{tensor}.bias", rows)

    def _mixture(self, name: str, source: str) -> Experts:
        whole, hidden, inner = self._tensors.whole, self._hidden, self._inner
        return Experts(
            router=whole(f"{name}.router", f"{source}.gate.weight", self._experts, hidden),
            experts=tuple(
                GatedMlp(
                    gate=whole(f"{name}.{i}.gate", f"{source}.experts.{i}.w1.weight", inner, hidden),
                    up=whole(f"{name}.{i}.up", f"{source}.experts.{i}.w3.weight", inner, hidden),
                    down=whole(f"{name}.{i}.down", f"{source}.experts.{i}.w2.weight", hidden, inner),
                )
                for i in range(self._experts)
            ),
            tolerance=self._tolerance,
        )

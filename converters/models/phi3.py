"""Every `Phi3ForCausalLM`: Phi-3-mini, -medium, Phi-3.5-mini, Phi-4, Phi-4-mini, and pruned shapes of them.

What the keys mean is what transformers' Phi3 classes compute with them (models/phi3, modeling_rope_utils).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from converters.checkpoint import Checkpoint
from converters.decoder import Attention, Decoder, GatedMlp, Layer, RoutedMlp, Weight
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

ARCHITECTURE = "Phi3ForCausalLM"
Stacked = Callable[[str, int, dict[str, int]], Sequence[Weight]]
"""(the checkpoint's name of a linear layer, columns, name -> rows) to the weights one above the other in it."""


def describe(checkpoint: Checkpoint) -> Decoder:
    """The Decoder of a Phi-3 architecture checkpoint; errors as `converters.models.describe`."""
    expect_architecture(checkpoint, ARCHITECTURE)
    config, tensors = StrictConfig(checkpoint.config), TensorMap(checkpoint)
    decoder = read_decoder(checkpoint, config, tensors)
    config.finish()
    tensors.finish()
    return decoder


def read_decoder(
    checkpoint: Checkpoint,
    config: StrictConfig,
    tensors: TensorMap,
    *,
    names: tuple[str, str] = ("phi3", ARCHITECTURE),
    stacked: Stacked | None = None,
    mlp: Callable[[int, int, int], RoutedMlp] | None = None,
) -> Decoder:
    """The part of `config` and `tensors` that a Phi-3 decoder is, in an architecture that may have more.

    `names`: model type and architecture of the whole. `stacked`: how the layers' linear layers are read; None for
    Phi-3's own, one tensor each. `mlp`: that of a layer, by its index, the hidden and the intermediate size; None for
    Phi-3's own.
    """
    _refuse_other_maths(config)
    vocab_size = config.integer("vocab_size")
    hidden_size = config.integer("hidden_size")
    context_length = config.integer("max_position_embeddings")
    attention = read_attention(config, hidden_size, context_length)
    tie = config.flag("tie_word_embeddings", False)
    embedding = tensors.whole("embedding", EMBEDDING, vocab_size, hidden_size)
    inner = config.integer("intermediate_size")
    count = config.integer("num_hidden_layers")

    def own(source: str, columns: int, rows: dict[str, int]) -> Sequence[Weight]:
        return tensors.stacked(f"{source}.weight", columns, rows)

    def layer(index: int) -> Layer:
        return _layer(tensors, index, (hidden_size, inner), attention, stacked or own, mlp)

    return Decoder(
        model_type=names[0],
        architecture=names[1],
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=inner,
        context_length=context_length,
        norm_eps=config.number("rms_norm_eps", 1e-5),
        rope=read_rope(config, attention.head_dim, context_length),
        attention=attention,
        embedding=embedding,
        layers=tuple(layer(i) for i in range(count)),
        final_norm=tensors.whole("final_norm", "model.norm.weight", hidden_size),
        lm_head=read_lm_head(checkpoint, tensors, embedding, tie=tie),
        bos_token_id=config.token_id("bos_token_id", vocab_size),
        eos_token_ids=read_eos_token_ids(checkpoint, config, vocab_size),
        pad_token_id=config.token_id("pad_token_id", vocab_size),
    )


def _refuse_other_maths(config: StrictConfig) -> None:
    config.expect("hidden_act", "silu")
    for key in ("attention_bias", "mlp_bias", "lm_head_bias", "is_encoder_decoder", "add_cross_attention"):
        config.expect(key, False)
    # 1: every layer attends alike and positions are not interpolated; what others mean is not published.
    for key in ("full_attn_mod", "interpolate_factor"):
        config.expect(key, 1)


def _layer(
    tensors: TensorMap,
    index: int,
    sizes: tuple[int, int],
    attention: Attention,
    stacked: Stacked,
    mlp: Callable[[int, int, int], RoutedMlp] | None,
) -> Layer:
    source, name = f"model.layers.{index}", f"layers.{index}"
    hidden, inner = sizes
    width, kv_width = attention.heads * attention.head_dim, attention.kv_heads * attention.head_dim
    mixing = f"{name}.attention"
    rows = {f"{mixing}.q": width, f"{mixing}.k": kv_width, f"{mixing}.v": kv_width}
    q, k, v = stacked(f"{source}.self_attn.qkv_proj", hidden, rows)
    (o,) = stacked(f"{source}.self_attn.o_proj", width, {f"{mixing}.o": hidden})
    return Layer(
        input_norm=tensors.whole(f"{name}.input_norm", f"{source}.input_layernorm.weight", hidden),
        q=q,
        k=k,
        v=v,
        o=o,
        post_attention_norm=tensors.whole(
            f"{name}.post_attention_norm", f"{source}.post_attention_layernorm.weight", hidden
        ),
        mlp=mlp(index, hidden, inner) if mlp else _mlp(index, hidden, inner, stacked),
    )


def _mlp(index: int, hidden: int, inner: int, stacked: Stacked) -> GatedMlp:
    source, name = f"model.layers.{index}.mlp", f"layers.{index}.mlp"
    gate, up = stacked(f"{source}.gate_up_proj", hidden, {f"{name}.gate": inner, f"{name}.up": inner})
    (down,) = stacked(f"{source}.down_proj", inner, {f"{name}.down": hidden})
    return GatedMlp(gate=gate, up=up, down=down)

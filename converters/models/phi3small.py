"""`Phi3SmallForCausalLM`: Phi-3-small in its 8K and 128K versions.

What the keys mean is what the model's own code on the hub computes with them (modeling_phi3_small.py and its
triton_flash_blocksparse_attn.py): block-sparse attention in all but every n-th layer, GEGELU, LayerNorm, biases, the
multipliers of muP (arXiv 2203.03466), and a vocabulary with ids that no text has.
"""

from __future__ import annotations

from converters.checkpoint import Checkpoint
from converters.decoder import Attention, BlockSparse, Decoder, GegeluMlp, Layer, Rows, Weight
from converters.errors import CheckpointError, UnsupportedError
from converters.model_parts import EMBEDDING, expect_architecture, read_eos_token_ids, read_lm_head
from converters.rope_config import read_rope
from converters.strict_config import StrictConfig
from converters.tensor_map import TensorMap
from converters.tiktoken import VOCABULARY, unused_ids

ARCHITECTURE = "Phi3SmallForCausalLM"
_TRAINING = (
    "attention_dropout_prob", "embedding_dropout_prob", "ffn_dropout_prob", "gegelu_pad_to_256",
    "pad_sequence_to_multiple_of_64", "reorder_and_upcast_attn", "attention_bias",
)  # fmt: skip
"""Keys that say nothing about inference; the biases are there whatever attention_bias says."""
_FIX = "compare config.json with the one that the model was published with"


def describe(checkpoint: Checkpoint) -> Decoder:
    """The Decoder of a Phi-3-small checkpoint; errors as `converters.models.describe`."""
    expect_architecture(checkpoint, ARCHITECTURE)
    config = StrictConfig(checkpoint.config)
    config.expect("hidden_act", "gegelu")
    config.expect("rope_position_scale", 1, 1.0)
    # The width of the MLP is ff_intermediate_size; a multiplier is given in its stead by no published model.
    config.expect("ff_dim_multiplier")
    for key in _TRAINING:
        config.take(key)
    vocab_size, hidden = config.integer("vocab_size"), config.integer("hidden_size")
    context_length = config.integer("max_position_embeddings")
    attention = _attention(config, hidden)
    inner, every = (
        config.integer("ff_intermediate_size"),
        config.integer("dense_attention_every_n_layers", 1 << 30),
    )
    limit, sparse = config.number("gegelu_limit"), _sparse(config, attention.heads)
    tie = config.flag("tie_word_embeddings", True)
    tensors = TensorMap(checkpoint)
    embedding = tensors.whole("embedding", EMBEDDING, vocab_size, hidden)
    layers = tuple(
        _layer(tensors, i, hidden, inner, attention, limit, None if (i + 1) % every == 0 else sparse)
        for i in range(config.integer("num_hidden_layers"))
    )
    theta = config.number("rope_embedding_base", 1e6)
    decoder = Decoder(
        model_type="phi3small",
        architecture=ARCHITECTURE,
        vocab_size=vocab_size,
        hidden_size=hidden,
        intermediate_size=inner,
        context_length=context_length,
        norm_eps=config.number("layer_norm_epsilon", 1e-5),
        rope=read_rope(
            config,
            attention.head_dim,
            context_length,
            theta=theta,
            mscales=checkpoint.config.get("rope_scaling") is not None,
        ),
        attention=attention,
        embedding=embedding,
        layers=layers,
        final_norm=tensors.whole("final_norm", "model.final_layernorm.weight", hidden),
        lm_head=read_lm_head(checkpoint, tensors, embedding, tie=tie),
        bos_token_id=config.token_id("bos_token_id", vocab_size),
        eos_token_ids=read_eos_token_ids(checkpoint, config, vocab_size),
        pad_token_id=config.token_id("pad_token_id", vocab_size),
        norm="layer",
        final_norm_bias=tensors.whole("final_norm.bias", "model.final_layernorm.bias", hidden),
        embedding_scale=config.number("mup_embedding_multiplier", 10.0),
        logit_scale=1 / config.number("mup_width_multiplier", 8.0),
        unused_tokens=_unused(checkpoint, config, vocab_size),
    )
    config.finish()
    tensors.finish()
    return decoder


def _attention(config: StrictConfig, hidden: int) -> Attention:
    heads = config.integer("num_attention_heads")
    kv_heads = config.integer("num_key_value_heads", heads)
    head_dim = hidden // heads
    if heads * head_dim != hidden or heads % kv_heads:
        raise CheckpointError(
            f"config.json: {heads} attention heads and {kv_heads} key-value heads do not divide hidden_size = "
            f"{hidden}",
            hint=_FIX,
        )
    multiplier = config.number("mup_attn_multiplier", 1.0)
    scale = multiplier / head_dim if config.flag("mup_use_scaling", True) else head_dim**-0.5
    return Attention(heads, kv_heads, head_dim, scale, None)


def _sparse(config: StrictConfig, heads: int) -> BlockSparse:
    block = config.integer("blocksparse_block_size")
    # Blocks of another size than the kernel's would be seen in other pieces than the pattern says.
    config.expect("blocksparse_triton_kernel_block_size", block)
    local, stride = config.integer("blocksparse_num_local_blocks"), config.integer("blocksparse_vert_stride")
    alike = config.flag("blocksparse_homo_head_pattern", False)
    return BlockSparse(block, local, stride, 0 if alike else max(1, stride // heads))


def _layer(
    tensors: TensorMap,
    index: int,
    hidden: int,
    inner: int,
    attention: Attention,
    limit: float,
    sparse: BlockSparse | None,
) -> Layer:
    source, name = f"model.layers.{index}", f"layers.{index}"
    packed, whole = _Packed(tensors, f"{source}.self_attn.query_key_value", attention, hidden), tensors.whole
    before, after = f"{name}.input_norm", f"{name}.post_attention_norm"
    up, down = f"{source}.mlp.up_proj", f"{source}.mlp.down_proj"
    return Layer(
        input_norm=whole(before, f"{source}.input_layernorm.weight", hidden),
        input_norm_bias=whole(f"{before}.bias", f"{source}.input_layernorm.bias", hidden),
        q=packed.weight(f"{name}.attention.q"),
        q_bias=packed.bias(f"{name}.attention.q"),
        k=packed.weight(f"{name}.attention.k"),
        k_bias=packed.bias(f"{name}.attention.k"),
        v=packed.weight(f"{name}.attention.v"),
        v_bias=packed.bias(f"{name}.attention.v"),
        o=whole(f"{name}.attention.o", f"{source}.self_attn.dense.weight", hidden, hidden),
        o_bias=whole(f"{name}.attention.o.bias", f"{source}.self_attn.dense.bias", hidden),
        post_attention_norm=whole(after, f"{source}.post_attention_layernorm.weight", hidden),
        post_attention_norm_bias=whole(f"{after}.bias", f"{source}.post_attention_layernorm.bias", hidden),
        mlp=GegeluMlp(
            gate_up=whole(f"{name}.mlp.gate_up", f"{up}.weight", 2 * inner, hidden),
            gate_up_bias=whole(f"{name}.mlp.gate_up.bias", f"{up}.bias", 2 * inner),
            down=whole(f"{name}.mlp.down", f"{down}.weight", hidden, inner),
            down_bias=whole(f"{name}.mlp.down.bias", f"{down}.bias", hidden),
            limit=limit,
        ),
        sparse=sparse,
    )


class _Packed:
    """query_key_value: for every key-value head its query heads, then its key, then its value."""

    def __init__(self, tensors: TensorMap, tensor: str, attention: Attention, hidden: int) -> None:
        self._tensor, self._hidden, self._attention = tensor, hidden, attention
        rows = (attention.heads + 2 * attention.kv_heads) * attention.head_dim
        tensors.check(f"{tensor}.weight", rows, hidden)
        tensors.check(f"{tensor}.bias", rows)

    def weight(self, name: str) -> Weight:
        parts = self._parts(name, "weight")
        return Weight(name, (sum(part.stop - part.start for part in parts), self._hidden), parts)

    def bias(self, name: str) -> Weight:
        parts = self._parts(name, "bias")
        return Weight(f"{name}.bias", (sum(part.stop - part.start for part in parts),), parts)

    def _parts(self, name: str, kind: str) -> tuple[Rows, ...]:
        attention = self._attention
        group = attention.heads // attention.kv_heads
        first, count = {"q": (0, group), "k": (group, 1), "v": (group + 1, 1)}[name[-1]]
        size, tensor = attention.head_dim, f"{self._tensor}.{kind}"
        starts = ((head * (group + 2) + first) * size for head in range(attention.kv_heads))
        return tuple(Rows(tensor, start, start + count * size) for start in starts)


def _unused(checkpoint: Checkpoint, config: StrictConfig, vocab_size: int) -> tuple[int, ...]:
    """Those that the config names, else those that its tiktoken vocabulary leaves over, as the model's code does."""
    if named := config.token_ids("dummy_token_indices", vocab_size):
        return named
    file = checkpoint.directory / VOCABULARY
    if file.is_file():
        return unused_ids(file, vocab_size)
    raise UnsupportedError(
        f"neither config.json (dummy_token_indices) nor {VOCABULARY} says which of the {vocab_size} tokens are none",
        hint=f"fetch the checkpoint again, with {VOCABULARY}",
    )

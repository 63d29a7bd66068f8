"""`Phi4FlashForCausalLM`: Phi-4-mini-flash-reasoning, the SambaY architecture (arXiv 2507.06607).

The first half alternates Mamba and windowed differential attention; then come one Mamba layer whose output is
remembered and one attention layer over everything; the rest alternates Gated Memory Units on that memory and
attention on that layer's keys and values.
"""

from __future__ import annotations

import math

from converters.checkpoint import Checkpoint
from converters.decoder import Attention, GatedMlp, Rope, Rows, Weight
from converters.errors import UnsupportedError
from converters.hybrid import Block, DifferentialAttention, GatedMemory, HybridDecoder, Mamba, Mixer
from converters.model_parts import EMBEDDING, expect_architecture, read_eos_token_ids, read_lm_head
from converters.strict_config import StrictConfig
from converters.tensor_map import TensorMap

ARCHITECTURE = "Phi4FlashForCausalLM"


def describe(checkpoint: Checkpoint) -> HybridDecoder:
    """The Decoder of a Phi-4-flash checkpoint; errors as `converters.models.describe`."""
    expect_architecture(checkpoint, ARCHITECTURE)
    config = StrictConfig(checkpoint.config)
    _refuse_other_maths(config)
    reader = _Reader(checkpoint, config)
    vocab_size, hidden = config.integer("vocab_size"), reader.hidden
    tensors = reader.tensors
    embedding = tensors.whole("embedding", EMBEDDING, vocab_size, hidden)
    context_length = config.integer("max_position_embeddings")
    decoder = HybridDecoder(
        model_type="phi4flash",
        architecture=ARCHITECTURE,
        vocab_size=vocab_size,
        hidden_size=hidden,
        intermediate_size=reader.inner,
        context_length=context_length,
        norm_eps=config.number("layer_norm_eps", 1e-5),
        rope=Rope(theta=1.0, dim=0, original_context=context_length),
        attention=reader.attention,
        embedding=embedding,
        layers=(),
        blocks=tuple(reader.block(i) for i in range(reader.layers)),
        norm="layer",
        final_norm=tensors.whole("final_norm", "model.final_layernorm.weight", hidden),
        final_norm_bias=tensors.whole("final_norm_bias", "model.final_layernorm.bias", hidden),
        lm_head=read_lm_head(checkpoint, tensors, embedding, tie=config.flag("tie_word_embeddings", True)),
        bos_token_id=config.token_id("bos_token_id", vocab_size),
        eos_token_ids=read_eos_token_ids(checkpoint, config, vocab_size),
        pad_token_id=config.token_id("pad_token_id", vocab_size),
    )
    config.finish()
    tensors.finish()
    return decoder


def _refuse_other_maths(config: StrictConfig) -> None:
    config.expect("hidden_act", "silu")
    config.expect("mb_per_layer", 2)
    config.expect("mamba_conv_bias", True)
    for key in ("mamba_proj_bias", "mlp_bias", "lm_head_bias"):
        config.expect(key, False)
    # There are no positions: what the key says is never read.
    config.take("rope_theta")


class _Reader:
    """The sizes of a config, and the blocks that they make of the tensors."""

    def __init__(self, checkpoint: Checkpoint, config: StrictConfig) -> None:
        self.tensors = TensorMap(checkpoint)
        self.hidden, self.inner = config.integer("hidden_size"), config.integer("intermediate_size")
        self.layers = config.integer("num_hidden_layers")
        if self.layers % 4:
            raise UnsupportedError(
                f"config.json: num_hidden_layers = {self.layers} is no multiple of 4, and what is remembered in the "
                "middle would then not be a Mamba layer's",
                hint="compare config.json with the one that the model was published with",
            )
        heads = config.integer("num_attention_heads")
        kv_heads = config.integer("num_key_value_heads", heads)
        head_dim = self.hidden // heads
        if heads * head_dim != self.hidden or kv_heads % 2 or heads % kv_heads:
            raise UnsupportedError(
                f"config.json: {heads} attention heads and {kv_heads} key-value heads do not make pairs within a "
                f"hidden size of {self.hidden}",
                hint="compare config.json with the one that the model was published with",
            )
        window = config.integer("sliding_window", 2047)
        self.attention = Attention(heads, kv_heads, head_dim, head_dim**-0.5, window)
        self.width = config.integer("mamba_expand", 2) * self.hidden
        self.states, self.taps = config.integer("mamba_d_state", 16), config.integer("mamba_d_conv", 4)
        rank = config.take("mamba_dt_rank", "auto")
        self.rank = math.ceil(self.hidden / 16) if rank == "auto" else config.integer("mamba_dt_rank")

    def block(self, index: int) -> Block:
        source, name = f"model.layers.{index}", f"layers.{index}"
        gate, up = self.tensors.stacked(
            f"{source}.mlp.fc1.weight",
            self.hidden,
            {f"{name}.mlp.gate": self.inner, f"{name}.mlp.up": self.inner},
        )
        down = self._whole(f"{name}.mlp.down", f"{source}.mlp.fc2.weight", self.hidden, self.inner)

        def norm(ours: str, theirs: str) -> Weight:
            return self._whole(f"{name}.{ours}", f"{source}.{theirs}", self.hidden)

        return Block(
            input_norm=norm("input_norm", "input_layernorm.weight"),
            input_norm_bias=norm("input_norm_bias", "input_layernorm.bias"),
            mixer=self._mixer(index, name, f"{source}.attn"),
            post_norm=norm("post_norm", "post_attention_layernorm.weight"),
            post_norm_bias=norm("post_norm_bias", "post_attention_layernorm.bias"),
            mlp=GatedMlp(gate, up, down),
        )

    def _mixer(self, index: int, name: str, source: str) -> Mixer:
        reads_back = index >= self.layers // 2 + 2
        if index % 2:
            return self._attention(index, f"{name}.attention", source, owns=not reads_back)
        if reads_back:
            return GatedMemory(
                self._whole(f"{name}.memory.gate", f"{source}.in_proj.weight", self.width, self.hidden),
                self._whole(f"{name}.memory.out", f"{source}.out_proj.weight", self.hidden, self.width),
            )
        name = f"{name}.mamba"
        selected = self.rank + 2 * self.states
        return Mamba(
            inputs=self._whole(f"{name}.inputs", f"{source}.in_proj.weight", 2 * self.width, self.hidden),
            conv=self._whole(f"{name}.conv", f"{source}.conv1d.weight", self.width, 1, self.taps),
            conv_bias=self._whole(f"{name}.conv_bias", f"{source}.conv1d.bias", self.width),
            selection=self._whole(f"{name}.selection", f"{source}.x_proj.weight", selected, self.width),
            step=self._whole(f"{name}.step", f"{source}.dt_proj.weight", self.width, self.rank),
            step_bias=self._whole(f"{name}.step_bias", f"{source}.dt_proj.bias", self.width),
            decay=self._whole(f"{name}.decay", f"{source}.A_log", self.width, self.states),
            skip=self._whole(f"{name}.skip", f"{source}.D", self.width),
            out=self._whole(f"{name}.out", f"{source}.out_proj.weight", self.hidden, self.width),
        )

    def _attention(self, index: int, name: str, source: str, *, owns: bool) -> DifferentialAttention:
        attention, inner = self.attention, f"{source}.inner_cross_attn"
        width, kv_width = attention.heads * attention.head_dim, attention.kv_heads * attention.head_dim
        rows = {"q": (0, width), "k": (width, kv_width), "v": (width + kv_width, kv_width)}
        total = width + 2 * kv_width if owns else width
        self.tensors.check(f"{source}.Wqkv.weight", total, self.hidden)
        self.tensors.check(f"{source}.Wqkv.bias", total)

        def part(which: str, tensor: str, *columns: int) -> Weight:
            start, count = rows[which]
            order = self._paired_queries(tensor) if which == "q" else (Rows(tensor, start, start + count),)
            suffix = "" if columns else "_bias"
            return Weight(f"{name}.{which}{suffix}", (count, *columns), order)

        def matrix(which: str) -> Weight:
            return part(which, f"{source}.Wqkv.weight", self.hidden)

        def bias(which: str) -> Weight:
            return part(which, f"{source}.Wqkv.bias")

        def vector(which: str) -> Weight:
            return self._whole(f"{name}.lambda_{which}", f"{inner}.lambda_{which}", attention.head_dim)

        return DifferentialAttention(
            q=matrix("q"),
            q_bias=bias("q"),
            k=matrix("k") if owns else None,
            k_bias=bias("k") if owns else None,
            v=matrix("v") if owns else None,
            v_bias=bias("v") if owns else None,
            o=self._whole(f"{name}.o", f"{source}.out_proj.weight", self.hidden, width),
            o_bias=self._whole(f"{name}.o_bias", f"{source}.out_proj.bias", self.hidden),
            lambdas=(vector("q1"), vector("k1"), vector("q2"), vector("k2")),
            sub_norm=self._whole(f"{name}.sub_norm", f"{inner}.subln.weight", 2 * attention.head_dim),
            depth=index,
            window=attention.window if index < self.layers // 2 else None,
        )

    def _paired_queries(self, tensor: str) -> tuple[Rows, ...]:
        """Heads in the order of `DifferentialAttention`: query head 2i + s attends with key-value head 2j + s of the
        pair j that i belongs to."""
        group, size = self.attention.heads // self.attention.kv_heads, self.attention.head_dim
        heads = [
            2 * i + side
            for pair in range(self.attention.kv_heads // 2)
            for side in range(2)
            for i in range(pair * group, (pair + 1) * group)
        ]
        return tuple(Rows(tensor, head * size, (head + 1) * size) for head in heads)

    def _whole(self, name: str, tensor: str, *shape: int) -> Weight:
        return self.tensors.whole(name, tensor, *shape)

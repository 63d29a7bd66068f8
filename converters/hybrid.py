"""What a hybrid decoder *is*: layers that mix tokens by a state space model, by attention, or by what another layer
remembers (SambaY, arXiv 2507.06607). As free of formats as `converters.decoder`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from converters.decoder import Decoder, GatedMlp, Weight

UNQUANTIZED = (".selection", ".step", ".decay")
"""Endings of the matrices that decide how fast a state is forgotten: an error there grows with the length of the
text, and all together they are a hundredth of a model. Kept in float32 whatever the recipe says."""


@dataclass(frozen=True)
class Mamba:
    """A selective state space (Mamba-1, arXiv 2312.00752, algorithm 2) of `width` channels with `states` states each.

    (u, z) = inputs x; u = silu(causal depthwise convolution of u over `taps` positions + conv_bias)
    (d, B, C) = selection u; d = softplus(step d + step_bias); A = -exp(decay)
    state = exp(d A) state + d u B; y = C state + skip u; the layer's output is out(y silu(z))

    inputs [2 width, hidden], conv [width, 1, taps], selection [step rank + 2 states, width], step [width, step rank],
    decay [width, states], out [hidden, width]; conv_bias, step_bias and skip [width].
    """

    inputs: Weight
    conv: Weight
    conv_bias: Weight
    selection: Weight
    step: Weight
    step_bias: Weight
    decay: Weight
    skip: Weight
    out: Weight

    @property
    def width(self) -> int:
        return self.out.shape[1]

    @property
    def states(self) -> int:
        return self.decay.shape[1]

    @property
    def taps(self) -> int:
        return self.conv.shape[2]

    @property
    def step_rank(self) -> int:
        return self.step.shape[1]

    def weights(self) -> tuple[Weight, ...]:
        return (
            self.inputs, self.conv, self.conv_bias, self.selection, self.step, self.step_bias, self.decay, self.skip,
            self.out,
        )  # fmt: skip


@dataclass(frozen=True)
class GatedMemory:
    """out(silu(gate x) * y), where y is that of the last Mamba layer before (a Gated Memory Unit)."""

    gate: Weight
    out: Weight

    def weights(self) -> tuple[Weight, ...]:
        return self.gate, self.out


@dataclass(frozen=True)
class DifferentialAttention:
    """What one softmax attends to, less `factor` times what another does (arXiv 2410.05258), without positions.

    Key-value heads 2j and 2j + 1 are a pair with one value: both of theirs, side by side. The rows of `q` are in the
    order in which key-value heads take them: the first heads / kv_heads queries belong to key-value head 0, and so
    on. With A_0 and A_1 the attention of a pair's two heads, the i-th head of the pair gives
    RMSNorm(A_0[i] - factor A_1[i]) * sub_norm * (1 - start), eps 1e-5.
    factor = exp(lambda_q1 . lambda_k1) - exp(lambda_q2 . lambda_k2) + start.

    k, v and their biases are None in a layer that reads the keys and values of the last layer that has some.
    """

    q: Weight
    q_bias: Weight
    k: Weight | None
    k_bias: Weight | None
    v: Weight | None
    v_bias: Weight | None
    o: Weight
    o_bias: Weight
    lambdas: tuple[Weight, Weight, Weight, Weight]
    """q1, k1, q2, k2; each [head_dim]."""
    sub_norm: Weight
    depth: int
    window: int | None

    @property
    def start(self) -> float:
        return 0.8 - 0.6 * math.exp(-0.3 * self.depth)

    def weights(self) -> tuple[Weight, ...]:
        own = (self.q, self.q_bias, self.k, self.k_bias, self.v, self.v_bias)
        present = tuple(weight for weight in own if weight is not None)
        return *present, *self.lambdas, self.sub_norm, self.o, self.o_bias


SUB_NORM_EPS = 1e-5
Mixer = Mamba | GatedMemory | DifferentialAttention


@dataclass(frozen=True)
class Block:
    """x += mixer(LayerNorm(x)); x += mlp(LayerNorm(x))."""

    input_norm: Weight
    input_norm_bias: Weight
    mixer: Mixer
    post_norm: Weight
    post_norm_bias: Weight
    mlp: GatedMlp

    def weights(self) -> tuple[Weight, ...]:
        """In the order in which a forward pass uses them."""
        return (
            self.input_norm, self.input_norm_bias, *self.mixer.weights(),
            self.post_norm, self.post_norm_bias, *self.mlp.weights(),
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class HybridDecoder(Decoder):
    """A decoder of blocks; `layers` is empty, and what reads only those refuses it (`converters.plain`).

    `attention.window` is that of the windowed blocks. `rope.dim` is 0: nothing is rotated.
    """

    blocks: tuple[Block, ...]

    @property
    def depth(self) -> int:
        return len(self.blocks)

    def weights(self) -> Iterator[Weight]:
        yield self.embedding
        for block in self.blocks:
            yield from block.weights()
        yield self.final_norm
        if self.final_norm_bias is not None:
            yield self.final_norm_bias
        if not self.tied:
            yield self.lm_head

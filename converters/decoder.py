"""What a decoder-only language model *is*, free of any file format.

An architecture file (`converters/models/<model_type>.py`) reads a config and names tensors; everything
downstream (writers, reference, recipe) sees only these dataclasses. No numpy and no format lives here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

UNUSED_LOGIT = -1e4
"""So low that the token's probability is 0 in any floating point, and no sum of squares overflows."""
Norm = Literal["rms", "layer"]
"""RMSNorm (arXiv 1910.07467), or LayerNorm (arXiv 1607.06450), which takes the mean away first."""
Routing = Literal["sparsemixer", "softmax"]
"""How two experts are weighed: `converters.routing` has both."""


@dataclass(frozen=True)
class Rows:
    """Rows [start, stop) of one checkpoint tensor (of its first axis)."""

    tensor: str
    start: int
    stop: int


@dataclass(frozen=True)
class Weight:
    """A lazy handle: the concatenation of `parts` along the first axis.

    `name` is neutral and stable (`layers.3.attention.q`): recipes, manifests and proofs use it.
    `shape` is (rows, columns) for a matrix in [out, in] order, (n,) for a vector. The last `zero_columns` are zeros
    that stand in no tensor: they make the columns a multiple of a block. A matrix with `factors` stands in no tensor
    either and has no parts: what is stored, and multiplied by, are its factors.
    """

    name: str
    shape: tuple[int, ...]
    parts: tuple[Rows, ...]
    zero_columns: int = 0
    factors: Factored | None = None

    @property
    def rows(self) -> int:
        return self.shape[0]

    @property
    def is_matrix(self) -> bool:
        return len(self.shape) == 2

    def stored(self) -> tuple[Weight, ...]:
        """What stands in the checkpoint for it: itself, or its factors."""
        return (self,) if self.factors is None else self.factors.weights()


@dataclass(frozen=True)
class Factored:
    """A matrix as two thin ones and some rows: y = b (a x) + (sparse x)[rows] (LoSparse, arXiv 2306.11222, eq. 3).

    a: [rank, in]; b: [out, rank]; sparse: [kept + 1, in], whose last row is zeros. rows: for every output the row of
    `sparse` that is added to it, the last one where none was kept. Matrices that stand one above the other in one of
    the checkpoint (q, k, v; gate, up) share one `a` and one `sparse`.
    """

    a: Weight
    sparse: Weight
    b: Weight
    rows: tuple[int, ...]

    def weights(self) -> tuple[Weight, ...]:
        return self.a, self.sparse, self.b


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding, half-split ("neox") order.

    The first `dim` channels of each head are rotated (partial rotary: dim < head_dim).
    inv_freq[i] = 1 / (factor[i] * theta ** (2 i / dim)); cos and sin are multiplied by `attention_factor`.
    With LongRoPE (both factor lists set; arXiv 2402.13753) `short_factors` hold while the *total* length is
    <= `original_context`, `long_factors` beyond it, for all positions at once; and so does `attention_factor`
    where `long_attention_factor` is another one.
    """

    theta: float
    dim: int
    original_context: int
    attention_factor: float = 1.0
    short_factors: tuple[float, ...] | None = None
    long_factors: tuple[float, ...] | None = None
    long_attention_factor: float | None = None

    @property
    def is_longrope(self) -> bool:
        return self.long_factors is not None

    def at(self, length: int) -> tuple[tuple[float, ...] | None, float]:
        """(factors, None for all 1; attention factor) of a sequence of `length` positions."""
        if self.is_longrope and length > self.original_context:
            return self.long_factors, self.long_attention_factor or self.attention_factor
        return self.short_factors, self.attention_factor


@dataclass(frozen=True)
class Attention:
    """Grouped-query attention. `window`: a query sees itself and the window - 1 positions before it."""

    heads: int
    kv_heads: int
    head_dim: int
    scale: float
    window: int | None


@dataclass(frozen=True)
class GatedMlp:
    """down(silu(gate x) * up x): SwiGLU (arXiv 2002.05202)."""

    gate: Weight
    up: Weight
    down: Weight

    def weights(self) -> tuple[Weight, ...]:
        return self.gate, self.up, self.down


@dataclass(frozen=True)
class GegeluMlp:
    """down(quick_gelu(min(g, limit)) * (clip(l, -limit, limit) + 1)) + down_bias, where g and l are the even and the
    odd rows of gate_up x + gate_up_bias, and quick_gelu(g) = g * sigmoid(1.702 g) (Phi-3-small)."""

    gate_up: Weight
    gate_up_bias: Weight
    down: Weight
    down_bias: Weight
    limit: float

    def weights(self) -> tuple[Weight, ...]:
        return self.gate_up, self.gate_up_bias, self.down, self.down_bias


@dataclass(frozen=True)
class BlockSparse:
    """Which keys a query may see, in blocks of `block` positions (Phi-3-small, arXiv 2404.14219, section 2).

    Query block i sees key block j <= i when i - j < `local`, or when (j + 1 + h * step) is a multiple of `stride`,
    where h is the query's head and step max(1, stride // heads); 0 where all heads see alike.
    """

    block: int
    local: int
    stride: int
    step: int


@dataclass(frozen=True)
class Experts:
    """A mixture of experts, the best two for each token by the scores that `router` [experts, hidden] gives.

    SparseMixer (arXiv 2409.12136): those further from the best than `tolerance` of the larger of the two sizes are
    out of the softmax in which the best is weighed; the second best in the same way, without the best.
    """

    router: Weight
    experts: tuple[GatedMlp, ...]
    tolerance: float
    routing: Routing = "sparsemixer"

    def weights(self) -> tuple[Weight, ...]:
        return self.router, *(weight for expert in self.experts for weight in expert.weights())


@dataclass(frozen=True)
class RoutedMlp:
    """One MLP for each token, chosen by the token's id alone (hash routing, MoEBERT, arXiv 2204.07675, section 3.3).

    `table` [vocabulary] has the number of every token's expert; its output has the weight 1.
    """

    table: Weight
    experts: tuple[GatedMlp, ...]

    def weights(self) -> tuple[Weight, ...]:
        return self.table, *(weight for expert in self.experts for weight in expert.weights())


@dataclass(frozen=True)
class Layer:
    """Weights of one pre-norm decoder layer: norm, attention, norm, MLP. A bias that is None is not there."""

    input_norm: Weight
    q: Weight
    k: Weight
    v: Weight
    o: Weight
    post_attention_norm: Weight
    mlp: GatedMlp | GegeluMlp | Experts | RoutedMlp
    input_norm_bias: Weight | None = None
    q_bias: Weight | None = None
    k_bias: Weight | None = None
    v_bias: Weight | None = None
    o_bias: Weight | None = None
    post_attention_norm_bias: Weight | None = None
    sparse: BlockSparse | None = None

    @property
    def dense(self) -> GatedMlp:
        """The MLP of a plain layer. Check with `converters.plain` first: ValueError for any other."""
        if not isinstance(self.mlp, GatedMlp) or any(weight.factors for weight in self.mlp.weights()):
            raise ValueError(f"{self.mlp.weights()[0].name}: not the MLP of a plain layer")
        return self.mlp

    def weights(self) -> tuple[Weight, ...]:
        """What is stored of it, once each, in the order in which a forward pass uses them."""
        return tuple(dict.fromkeys(stored for weight in self.handles() for stored in weight.stored()))

    def handles(self) -> tuple[Weight, ...]:
        """What it computes with, in that order: a matrix in factors as the matrix that it is."""
        own = (
            self.input_norm, self.input_norm_bias, self.q, self.q_bias, self.k, self.k_bias, self.v, self.v_bias,
            self.o, self.o_bias, self.post_attention_norm, self.post_attention_norm_bias,
        )  # fmt: skip
        return *(weight for weight in own if weight is not None), *self.mlp.weights()


@dataclass(frozen=True)
class LoraPair:
    """The low-rank update of one linear layer (arXiv 2106.09685, eq. 3): y += scale * b (a x).

    weight: neutral name of the layer's matrix [out, in]. a: [rank, in]; b: [out, rank]. Layers that stand one above
    the other in one matrix of the checkpoint (q, k, v) share one `a`.
    """

    weight: str
    a: Weight
    b: Weight
    scale: float


@dataclass(frozen=True)
class Lora:
    """An adapter: pairs for some linear layers, at most one for each."""

    name: str
    pairs: tuple[LoraPair, ...]


@dataclass(frozen=True)
class Decoder:
    """A whole model. `context_length` is what the checkpoint claims; targets and runtimes may cap it.

    `intermediate_size` is that of one MLP, or of one expert. `lm_head` is the very object `embedding` when they
    are tied, and is then stored and streamed once.
    """

    model_type: str
    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    context_length: int
    norm_eps: float
    rope: Rope
    attention: Attention
    embedding: Weight
    layers: tuple[Layer, ...]
    final_norm: Weight
    lm_head: Weight
    bos_token_id: int | None
    eos_token_ids: tuple[int, ...]
    pad_token_id: int | None
    norm: Norm = "rms"
    final_norm_bias: Weight | None = None
    lm_head_bias: Weight | None = None
    embedding_scale: float = 1.0
    """What every row of the embedding is multiplied by."""
    logit_scale: float = 1.0
    unused_tokens: tuple[int, ...] = ()
    """Ids that no text has and none may get: UNUSED_LOGIT is added to their logits."""
    adapters: tuple[Lora, ...] = ()
    """Switched at run time, one at most, and stored beside the weights; `weights` does not give theirs."""

    @property
    def has_experts(self) -> bool:
        return any(isinstance(layer.mlp, Experts) for layer in self.layers)

    @property
    def tied(self) -> bool:
        return self.lm_head is self.embedding

    @property
    def depth(self) -> int:
        """How many layers there are, of whatever kind."""
        return len(self.layers)

    def weights(self) -> Iterator[Weight]:
        """Every weight once, in forward order: the order of the one streamed pass."""
        yield self.embedding
        for layer in self.layers:
            yield from layer.weights()
        yield self.final_norm
        if self.final_norm_bias is not None:
            yield self.final_norm_bias
        if not self.tied:
            yield self.lm_head
        if self.lm_head_bias is not None:
            yield self.lm_head_bias

    @property
    def parameters(self) -> int:
        total = 0
        for weight in self.weights():
            count = 1
            for n in weight.shape:
                count *= n
            total += count
        return total

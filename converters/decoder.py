"""What a decoder-only language model *is*, free of any file format.

An architecture file (`converters/models/<model_type>.py`) reads a config and names tensors; everything
downstream (writers, reference, recipe) sees only these dataclasses. No numpy and no format lives here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


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
    `shape` is (rows, columns) for a matrix in [out, in] order, (n,) for a vector.
    """

    name: str
    shape: tuple[int, ...]
    parts: tuple[Rows, ...]

    @property
    def rows(self) -> int:
        return self.shape[0]

    @property
    def is_matrix(self) -> bool:
        return len(self.shape) == 2


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding, half-split ("neox") order.

    The first `dim` channels of each head are rotated (partial rotary: dim < head_dim).
    inv_freq[i] = 1 / (factor[i] * theta ** (2 i / dim)); cos and sin are multiplied by `attention_factor`.
    With LongRoPE (both factor lists set; arXiv 2402.13753) `short_factors` hold while the *total* length is
    <= `original_context`, `long_factors` beyond it, for all positions at once.
    """

    theta: float
    dim: int
    original_context: int
    attention_factor: float = 1.0
    short_factors: tuple[float, ...] | None = None
    long_factors: tuple[float, ...] | None = None

    @property
    def is_longrope(self) -> bool:
        return self.long_factors is not None


@dataclass(frozen=True)
class Attention:
    """Grouped-query attention. `window`: a query sees itself and the window - 1 positions before it."""

    heads: int
    kv_heads: int
    head_dim: int
    scale: float
    window: int | None


@dataclass(frozen=True)
class Layer:
    """Weights of one pre-norm decoder layer: RMSNorm, attention, RMSNorm, SwiGLU; no biases."""

    input_norm: Weight
    q: Weight
    k: Weight
    v: Weight
    o: Weight
    post_attention_norm: Weight
    gate: Weight
    up: Weight
    down: Weight

    def weights(self) -> tuple[Weight, ...]:
        """In the order in which a forward pass uses them."""
        return (
            self.input_norm, self.q, self.k, self.v, self.o,
            self.post_attention_norm, self.gate, self.up, self.down,
        )  # fmt: skip


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

    `lm_head` is the very object `embedding` when they are tied, and is then stored and streamed once.
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
    adapters: tuple[Lora, ...] = ()
    """Switched at run time, one at most, and stored beside the weights; `weights` does not give theirs."""

    @property
    def tied(self) -> bool:
        return self.lm_head is self.embedding

    def weights(self) -> Iterator[Weight]:
        """Every weight once, in forward order: the order of the one streamed pass."""
        yield self.embedding
        for layer in self.layers:
            yield from layer.weights()
        yield self.final_norm
        if not self.tied:
            yield self.lm_head

    @property
    def parameters(self) -> int:
        total = 0
        for weight in self.weights():
            count = 1
            for n in weight.shape:
                count *= n
            total += count
        return total

"""What onnxruntime-genai takes to run an ONNX folder on a CPU, as edge.runtimes.genai sets it up.

    weights    of what is multiplied by: for 32 int4 or int8 weights 24 or 40 bytes, packed anew with scales and
               block sums, and the scales once more in the file's pages; floats widened to float32;
               of the rest (embedding, norms, rotary tables) the file's pages
    kv_cache   2 * layers * kv_heads * head_dim float32 a position
    workspace  batch * 4 * (vocabulary + 3.3 * intermediate + 4.1 * hidden + 3.5 * (heads + 2 * kv_heads) *
               head_dim) + 3 MiB, and batch * 18 KiB where a prompt takes several batches
    runtime    83 MiB + 330 bytes a token of the vocabulary

When a session is made, MatMulNBits packs what it multiplies by, and the pages it was mapped in are let go tensor
by tensor: loading peaks with the largest tensor there twice. A tied float table stays in its narrow type too.
Logits are there for every position of a batch. The figures are fitted to what `python -m benchmarks.fit` measures
on x86-64; there is no term for the length of what is attended to, since attention works in tiles, but for
block-sparse attention, which adds the scores of a batch: heads * batch * length float32.
"""

from __future__ import annotations

from converters.decoder import Decoder
from converters.hybrid import HybridDecoder
from converters.onnx.layout import plan
from converters.onnx.padded_heads import cached_head_dim
from converters.onnx.tensors import Stored
from converters.writer import Storages
from edge.engine_settings import EngineSettings
from edge.fitting.hybrid import cache_bytes
from edge.fitting.memory import Memory
from quant.blocks import BLOCK

BATCH = 512
LOGITS_BYTES = 128 << 20
LEAST_BATCH = 16
_BLOCK_BYTES = {"int4": 24, "int4_asym": 24, "int8": 40}
_FLOAT_SLACK = 1.02
_INTERMEDIATE, _HIDDEN, _QKV = 3.3, 4.1, 3.5
_BASE = 3 << 20
_SEVERAL_BATCHES = 18 << 10
_ARENA = 128 << 20
_RUNTIME = 83 << 20
_TOKEN = 330


def memory(
    decoder: Decoder, recipe: Storages, context_length: int, *, filled: int, settings: EngineSettings
) -> Memory:
    """`filled`: positions that are really used, of the `context_length` that the cache is made for."""
    layout = plan(decoder, recipe, context_length)
    multiplied = [s for s in layout.stored if _is_multiplied(s, decoder)]
    let_go = sum(s.tensors[0].nbytes for s in multiplied if not _is_looked_up(s, decoder))
    mapped = layout.nbytes - let_go
    embedding = next(s for s in layout.stored if _is_looked_up(s, decoder)).tensors[0].nbytes
    loading = max(_twice_while_loading(stored) for stored in multiplied) - embedding
    return Memory(
        weights=sum(_copied(s, decoder) for s in multiplied) + mapped,
        kv_cache=_cache(decoder, context_length),
        workspace=max(_workspace(decoder, filled, settings.batch or BATCH), loading),
        runtime=_RUNTIME + _TOKEN * decoder.vocab_size,
        file_backed=mapped,
    )


def _cache(decoder: Decoder, context_length: int) -> int:
    if isinstance(decoder, HybridDecoder):
        return cache_bytes(decoder, context_length)
    position = 4 * 2 * len(decoder.layers) * decoder.attention.kv_heads * cached_head_dim(decoder)
    return position * context_length


def _workspace(decoder: Decoder, filled: int, batch: int) -> int:
    chunk = max(LEAST_BATCH, min(batch, LOGITS_BYTES // (4 * decoder.vocab_size)))
    attention = decoder.attention
    qkv = (attention.heads + 2 * attention.kv_heads) * attention.head_dim
    row = _INTERMEDIATE * decoder.intermediate_size + _HIDDEN * decoder.hidden_size + _QKV * qkv
    several = _SEVERAL_BATCHES * chunk if filled > chunk else 0
    scores = _sparse_scores(decoder, filled, chunk)
    return round(4 * min(chunk, filled) * (decoder.vocab_size + row)) + _BASE + several + scores


def _sparse_scores(decoder: Decoder, filled: int, chunk: int) -> int:
    """SparseAttention holds the scores of all heads of a batch, and the arena rounds up. Where LongRoPE has switched,
    the first batch is all up to the switch (edge.runtimes.genai)."""
    if not any(layer.sparse for layer in decoder.layers):
        return 0
    switched = decoder.rope.is_longrope and filled > decoder.rope.original_context
    tokens = min(decoder.rope.original_context + 1 if switched else chunk, filled)
    scores = 4 * decoder.attention.heads * tokens * filled
    return scores + min(scores, _ARENA)


def _is_looked_up(stored: Stored, decoder: Decoder) -> bool:
    return stored.weights[0] is decoder.embedding


def _is_multiplied(stored: Stored, decoder: Decoder) -> bool:
    return stored.weights[0].is_matrix and (decoder.tied or not _is_looked_up(stored, decoder))


def _copied(stored: Stored, decoder: Decoder) -> int:
    """Bytes of what a linear operator packs for itself."""
    if stored.format is not None:
        return stored.rows * (stored.columns // BLOCK) * _BLOCK_BYTES[stored.storage]
    narrow = stored.tensors[0].nbytes if _is_looked_up(stored, decoder) and stored.storage != "f32" else 0
    return round(stored.rows * stored.columns * 4 * _FLOAT_SLACK) + narrow


def _twice_while_loading(stored: Stored) -> int:
    return stored.tensors[0].nbytes if stored.format is not None else stored.rows * stored.columns * 4

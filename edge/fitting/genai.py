"""What onnxruntime-genai takes to run an ONNX folder on a CPU, as edge.runtimes.genai sets it up.

    weights    int4, int8: codes, scales and block sums packed anew, 24 and 40 bytes for 32 weights, and the
               scales once more, mapped; floats: widened to float32, which leaves holes of an eighth in the heap;
               an embedding that is only looked up, the norms and the rotary tables: mapped
    kv_cache   2 * layers * kv_heads * head_dim float32 a position
    workspace  a chunk of the prompt: float32 logits of each position, activations and scores
    runtime    81 MiB + 430 bytes a token of the vocabulary

MatMulNBits packs what it multiplies by when a session is made, and the pages it was mapped in are let go one
tensor at a time: loading peaks with the largest tensor there twice. The figures are fitted to what
`python -m benchmarks.fit` measures on x86-64.
"""

from __future__ import annotations

from converters.decoder import Decoder
from converters.onnx.layout import plan
from converters.onnx.padded_heads import cached_head_dim
from converters.onnx.tensors import Stored
from converters.writer import Storages
from edge.fitting.memory import Memory

LOGITS_BYTES = 128 << 20
BATCH = 512
_BLOCK_BYTES = {"int4": 24, "int4_asym": 28, "int8": 40}
_RUNTIME = 68 << 20
_TOKEN = 430
_BASE = 2_000_000


def memory(
    decoder: Decoder, recipe: Storages, context_length: int, *, filled: int, batch: int = BATCH
) -> Memory:
    """`filled`: positions that are really used, of the `context_length` that the cache is made for."""
    layout = plan(decoder, recipe, context_length)
    multiplied = [s for s in layout.stored if _is_multiplied(s, decoder)]
    copies = sum(_copied(stored) for stored in multiplied)
    codes_of_copied = sum(s.tensors[0].nbytes for s in multiplied if s.weights[0] is not decoder.embedding)
    mapped = layout.nbytes - codes_of_copied
    attention = decoder.attention
    position = 4 * 2 * len(decoder.layers) * attention.kv_heads * cached_head_dim(decoder)
    chunk = min(max(16, min(batch, LOGITS_BYTES // (4 * decoder.vocab_size))), filled)
    logits = 4 * chunk * decoder.vocab_size
    activations = 4 * chunk * (6 * decoder.intermediate_size + 4 * decoder.hidden_size)
    loading = max(_copied(stored) for stored in multiplied)
    return Memory(
        weights=copies + mapped,
        kv_cache=position * context_length,
        workspace=max(logits + activations + _BASE, loading),
        runtime=_RUNTIME + _TOKEN * decoder.vocab_size,
        file_backed=mapped,
    )


def _is_multiplied(stored: Stored, decoder: Decoder) -> bool:
    return stored.weights[0].is_matrix and (decoder.tied or stored.weights[0] is not decoder.embedding)


def _copied(stored: Stored) -> int:
    """Bytes of what a linear operator packs for itself."""
    if stored.format is None:
        return stored.rows * stored.columns * 4 * 9 // 8
    return stored.rows * (stored.columns // 32) * _BLOCK_BYTES[stored.storage]

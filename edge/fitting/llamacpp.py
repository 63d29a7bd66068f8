"""What llama.cpp takes to run a GGUF on a CPU, as edge.runtimes.llamacpp sets it up.

    weights    the whole file, mapped, + a copy of every tensor that the CPU's kernels want interleaved
    kv_cache   2 * layers * kv_heads * head_dim values (float16) a position, positions rounded up to 256
    workspace  batch * 4 * (3 * intermediate + 3.7 * hidden) + 3.4 * batch * positions + 1.6 MiB
    runtime    52 MiB + 340 bytes a token of the vocabulary

The copies are of the types and row counts that ggml_repack_get_optimal_repack_type takes
(ggml/src/ggml-cpu/repack.cpp). A batch has gate and up at once, their product and the rows around them in
float32; the mask of flash attention grows with the positions, and without it 4 * heads * batch bytes of scores do.
The figures are fitted to what `python -m benchmarks.fit` measures on x86-64.
"""

from __future__ import annotations

from typing import Literal

from converters import gguf
from converters.decoder import Decoder
from converters.gguf.layout import tensors
from converters.gguf.limits import CONTEXT_STEP
from converters.writer import Storages
from edge.engine_settings import EngineSettings
from edge.fitting.memory import Memory

Cpu = Literal["x86-64", "arm64"]
BATCH, KV_TYPE = 512, "f16"
"""What an engine without settings takes."""
_REPACKED: dict[Cpu, tuple[tuple[str, ...], int]] = {
    "x86-64": (("int4",), 8),
    "arm64": (("int4", "int8"), 4),
}
"""Storages that are interleaved, where the rows are a multiple of the number. arm64: read in the source, with
dotprod, which every phone of the table has."""
_KV_VALUE_BYTES = {"f32": 4.0, "f16": 2.0, "q8_0": 34 / 32, "q4_0": 18 / 32}
_RUNTIME = 52 << 20
_TOKEN = 340
_BASE = 1_700_000
_HIDDEN = 3.7
_MASK = 3.4


def memory(
    decoder: Decoder,
    recipe: Storages,
    context_length: int,
    *,
    filled: int,
    cpu: Cpu,
    settings: EngineSettings,
) -> Memory:
    """`filled`: positions that are really used, of the `context_length` that the cache is made for."""
    file = gguf.planned_bytes(decoder, recipe)
    positions = -(-context_length // CONTEXT_STEP) * CONTEXT_STEP
    attention = decoder.attention
    values = 2 * len(decoder.layers) * attention.kv_heads * attention.head_dim * positions
    chunk = min(settings.batch or BATCH, filled)
    scores = 4 * attention.heads * chunk * filled if settings.flash_attention is False else 0
    return Memory(
        weights=file + (0 if settings.repack is False else _repacked(decoder, recipe, cpu)),
        kv_cache=round(values * _KV_VALUE_BYTES[settings.kv_type or KV_TYPE]),
        workspace=scores + workspace(decoder.intermediate_size, decoder.hidden_size, chunk, filled),
        runtime=runtime(decoder.vocab_size),
        file_backed=file,
    )


def workspace(intermediate: int, hidden: int, batch: int, positions: int) -> int:
    """Bytes that a batch of tokens takes while it is computed, without the scores of plain attention."""
    return round(batch * 4 * (3 * intermediate + _HIDDEN * hidden) + _MASK * batch * positions) + _BASE


def runtime(vocab_size: int) -> int:
    """Bytes of the library itself and of the vocabulary."""
    return _RUNTIME + _TOKEN * vocab_size


def _repacked(decoder: Decoder, recipe: Storages, cpu: Cpu) -> int:
    """Bytes of interleaved copies. An embedding is looked up as it lies; as a tied output it is copied too."""
    storages, multiple = _REPACKED[cpu]
    multiplied = [
        tensor
        for tensor in tensors(decoder, recipe.storage)
        if len(tensor.shape) == 2 and (decoder.tied or tensor.name != "token_embd.weight")
    ]
    return sum(t.nbytes for t in multiplied if t.storage in storages and t.shape[0] % multiple == 0)
